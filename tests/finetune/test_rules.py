"""The rules at their boundaries; planted runs are in the tests of the verdict."""

from __future__ import annotations

import numpy as np
import pytest

from evaluate.selftest import rates
from finetune.rules import (
    Evidence,
    Word,
    diverged,
    kept,
    overfitting,
    symptom,
    word,
    worse_than_best,
)


def exact(
    val: list[float], train_probe: list[float], start: tuple[float, float] | None = None
) -> Evidence:
    """Forty groups that all have the same score, so that intervals have no width."""
    rows = (np.array(means)[:, None] * np.ones(40) for means in (val, train_probe))
    started = (mean * np.ones(40) for mean in start) if start else (None, None)
    return Evidence(*rows, 0, 0, *started)


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


@pytest.mark.parametrize(
    ("val", "train_probe", "expected", "judged", "row"),
    [
        ([1, 0.8], [1, 0.8], None, Word.NO_EFFECT, 1),  # all of the gain is the export's
        ([1, 0.801, 0.8, 0.801], [1, 0.8, 0.8, 0.8], None, Word.NO_EFFECT, 2),
        ([1, 0.79, 0.78, 0.77], [1, 0.79, 0.78, 0.77], None, Word.IMPROVING, 3),
        ([1, 0.78, 0.7705, 0.77, 0.77], [1, 0.78, 0.77, 0.77, 0.77], None, Word.CONVERGED, 3),
        ([1, 0.85, 0.86], [1, 0.85, 0.86], "regressing", Word.REGRESSING, 1),
        ([1, 0.82, 0.84], [1, 0.75, 0.7], "overfitting", Word.OVERFITTING, 1),
        ([1, 0.77, 0.83, 0.83], [1, 0.77, 0.83, 0.83], "regressing", Word.REGRESSING, 1),
        ([1, 0.95, 0.99], [1, 0.95, 0.99], "regressing", Word.REGRESSING, 1),
        ([1, 1.1, 1.2], [1, 1.1, 1.2], "diverged", Word.DIVERGED, 0),
        ([1, 0.7, np.nan], [1, 0.7, np.nan], "diverged", Word.DIVERGED, 1),
    ],
)
def test_a_training_that_starts_with_an_export_is_judged_against_that(
    val, train_probe, expected, judged, row
):
    """The export has a fifth less loss than the base."""
    found = exact(val, train_probe, (0.8, 0.8))
    assert symptom(found) == expected
    assert (word(found), kept(found)) == (judged, row)


@pytest.mark.parametrize(
    ("val", "expected", "judged"),
    [
        ([1, 1.15, 1.1], None, Word.IMPROVING),  # worse than the base, and better than it started
        ([1, 1.25, 1.3], "diverged", Word.DIVERGED),
        ([1, 1.15, 1.18, 1.18], "regressing", Word.REGRESSING),
    ],
)
def test_an_export_that_is_worse_than_the_base_is_not_the_training_s_doing(val, expected, judged):
    found = exact(val, val, (1.2, 1.2))
    assert (symptom(found), word(found), kept(found)) == (expected, judged, 0)


def test_the_tolerance_is_of_the_gain_since_the_start():
    assert exact([1, 0.7, 0.7], [1, 1, 1], (0.8, 1)).tolerance == pytest.approx(0.005)
    assert exact([1, 0.79, 0.79], [1, 1, 1], (0.8, 1)).tolerance == pytest.approx(0.002)
    assert exact([1, 0.9, 0.9], [1, 1, 1], (0.8, 1)).tolerance == pytest.approx(0.002)


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


@pytest.mark.quick_cases(2)
@pytest.mark.parametrize("pictures", [32, 64, 128])
@pytest.mark.parametrize(("checkpoints", "most"), [(10, 0.02), (30, 0.03)])
def test_a_settled_run_is_neither_stopped_nor_called_worse(pictures, checkpoints, most):
    """A gain of 2 % that stays, while the loss on training pictures keeps falling."""
    called, stopped = rates.false_alarms(rates.settled(checkpoints), pictures, 300)
    assert max(called, stopped) <= most


@pytest.mark.parametrize(("checkpoints", "most"), [(10, 0.02), (30, 0.03)])
def test_a_run_without_effect_is_not_called_worse(checkpoints, most):
    means = [1.0] * (checkpoints + 1)
    called, stopped = rates.false_alarms((means, means), 64, 300)
    assert max(called, stopped) <= most


@pytest.mark.parametrize("pictures", [64, 128])
def test_giving_back_a_third_of_the_gain_is_seen(pictures):
    assert rates.power(pictures, 200) >= 0.9


def test_a_slow_start_goes_on():
    """Hardly worse than the base first, then ten percent better: once stopped in 200 of 200 cases."""
    assert max(rates.false_alarms((rates.SLOW_START,) * 2, 64, 200)) <= 0.02
