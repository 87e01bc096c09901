"""The rules at their boundaries; planted runs are in the tests of the verdict."""

from __future__ import annotations

import numpy as np
import pytest

from finetune.rules import (
    LOOKS,
    Evidence,
    Word,
    diverged,
    kept,
    overfitting,
    symptom,
    word,
    worse_than_best,
)
from tests.finetune.grouped import drawn_groups


def exact(val: list[float], train_probe: list[float]) -> Evidence:
    """Forty groups that all have the same score, so that intervals have no width."""
    return Evidence(*(np.array(means)[:, None] * np.ones(40) for means in (val, train_probe)))


def test_tolerance_is_a_twentieth_of_the_gain_and_never_below_the_negligible():
    assert exact([1, 0.9, 0.95], [1, 1, 1]).tolerance == pytest.approx(0.005)
    assert exact([1, 0.99, 0.995], [1, 1, 1]).tolerance == pytest.approx(0.002)


@pytest.mark.parametrize(
    ("val", "train_probe", "expected"),
    [
        ([1, 0.9, 0.9049, 0.9049], [1, 0.9, 0.85, 0.8], None),
        ([1, 0.9, 0.9051, 0.9051], [1, 0.9, 0.85, 0.8], "overfitting"),
        ([1, 0.9, 0.9049, 0.9051], [1, 0.9, 0.85, 0.8], None),  # at one look of two
        ([1, 0.9, 0.95], [1, 0.9, 0.8], None),  # one look is not enough
        ([1, 0.9, 0.9051, 0.9051], [1, 0.9, 0.9, 0.9], "regressing"),  # training pictures no better
        ([1, 0.9, 0.89, 0.88], [1, 0.9, 0.7, 0.5], None),  # the gap alone
        ([1, 1.0019, 1.0019], [1, 1.0019, 1.0019], None),
        ([1, 1.0021, 1.0021], [1, 1.0021, 1.0021], "diverged"),
        ([1, 1.0019, 1.0021], [1, 1.0019, 1.0021], None),
        ([1, 1.3, 1.1], [1, 1.3, 1.1], None),  # it recovers
        ([1, 1.0021, 1.0021], [1, 0.95, 0.9], "overfitting"),  # the best is the base
    ],
)
def test_boundaries(val: list[float], train_probe: list[float], expected: str | None):
    assert symptom(exact(val, train_probe)) == expected


def test_worse_than_the_best_is_not_yet_overfitting():
    regressing = exact([1, 0.9, 0.95, 0.95], [1, 0.9, 0.9, 0.9])
    assert worse_than_best(regressing)
    assert not overfitting(regressing)


@pytest.mark.parametrize("split", ["val", "train_probe"])
def test_not_a_number_is_divergence(split: str):
    broken = exact([1, 0.9, 0.8], [1, 0.9, 0.8])
    getattr(broken, split)[2, 5] = np.nan
    assert diverged(broken)
    assert broken.best == (1 if split == "val" else 2)


def test_evidence_needs_a_checkpoint():
    with pytest.raises(ValueError, match="at least one checkpoint"):
        Evidence(np.ones((1, 40)), np.ones((1, 40)))


def test_a_run_that_ends_after_one_checkpoint_can_have_diverged():
    assert diverged(exact([1, 1.5], [1, 1.5]))


def test_groups_count_once_whatever_their_size():
    val = np.array([[1.0] * 5, [0.5, 0.5, 0.5, 0.5, 1.0]])
    found = Evidence.of(val, val, list("aaaab"), list("aaaab"))
    assert found.change("val", 1, 0).value == pytest.approx(-0.25)
    assert (found.change("val", 1, 0).n, found.change("val", 1, 0).groups) == (5, 2)
    assert found.groups == 2


def test_of_a_run_without_effect_the_base_is_kept():
    assert kept(exact([1, 0.9985, 0.9985, 0.9985], [1, 1, 1, 1])) == 0


def test_a_run_that_lost_all_it_had_gained_at_its_last_look_had_an_effect():
    lost = exact([1, 0.95, 0.9, 1.0], [1, 0.95, 0.9, 1.0])
    assert word(lost) is not Word.NO_EFFECT
    assert kept(lost) == 2


# The demo's variances: a checkpoint's score wanders by 0.8 % within a group and by 0.4 % within a picture.
GROUP_SD, PICTURE_SD = 0.008, 0.004


def simulated(rng: np.random.Generator, val: list[float], probe: list[float], pictures: int):
    """Evidence of a run with these mean scores, over pictures that are drawn by group."""
    sides = []
    for means in (val, probe):
        groups = drawn_groups(rng, pictures)
        codes = np.unique(groups, return_inverse=True)[1]
        effect = rng.normal(1, 0.4, codes.max() + 1)[codes]
        wander = rng.normal(0, GROUP_SD, (len(means), codes.max() + 1))[:, codes]
        scores = 1 + (np.array(means)[:, None] - 1) * effect + wander
        scores += rng.normal(0, PICTURE_SD, scores.shape)
        scores[0] = 1
        sides.append((scores, groups))
    (one, ones), (other, others) = sides
    return Evidence.of(one, other, ones, others)


def stops(found: Evidence) -> bool:
    """Whether training would have ended at any of its evaluations."""
    parts = (
        Evidence(found.val[: end + 1], found.train_probe[: end + 1])
        for end in range(LOOKS, found.last + 1)
    )
    return any(symptom(part) for part in parts)


@pytest.mark.parametrize("pictures", [32, 64, 128])
@pytest.mark.parametrize(("checkpoints", "most"), [(10, 0.02), (30, 0.03)])
def test_a_settled_run_is_neither_stopped_nor_called_worse(pictures, checkpoints, most):
    """A gain of 2 % that stays, while the loss on training pictures keeps falling."""
    rng = np.random.default_rng(pictures)
    val, probe = [1, *[0.98] * checkpoints], [1, *np.linspace(0.97, 0.9, checkpoints)]
    bad = (Word.OVERFITTING, Word.REGRESSING, Word.DIVERGED)
    runs = [simulated(rng, val, probe, pictures) for _ in range(300)]
    assert np.mean([word(found) in bad for found in runs]) <= most
    assert np.mean([stops(found) for found in runs]) <= most


@pytest.mark.parametrize("checkpoints", [10, 30])
def test_a_run_without_effect_is_not_called_diverged(checkpoints):
    rng = np.random.default_rng(1)
    means = [1.0] * (checkpoints + 1)
    runs = [simulated(rng, means, means, 64) for _ in range(200)]
    assert np.mean([word(found) is Word.DIVERGED or stops(found) for found in runs]) <= 0.02


@pytest.mark.parametrize("pictures", [64, 128])
def test_giving_back_a_third_of_the_gain_is_seen(pictures):
    rng = np.random.default_rng(pictures)
    val = [1, 0.98, 0.965, 0.955, 0.95, 0.95, 0.953, 0.957, 0.961, 0.965, 0.965]
    probe = [1, *np.linspace(0.97, 0.85, 10)]
    runs = [simulated(rng, val, probe, pictures) for _ in range(200)]
    assert np.mean([word(found) is Word.OVERFITTING for found in runs]) >= 0.9


def test_a_slow_start_goes_on():
    """Hardly worse than the base first, then ten percent better: once stopped in 200 of 200 cases."""
    rng = np.random.default_rng(2)
    val = [1, 1.0005, 1.001, 0.999, 0.97, 0.94, 0.91, 0.9, 0.9]
    runs = [simulated(rng, val, val, 64) for _ in range(200)]
    assert np.mean([stops(found) for found in runs]) <= 0.02
