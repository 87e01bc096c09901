"""Each verdict is found where it was planted, on every seed, and not where it only looks like it."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from curate.decide.config import SMALLEST_JUDGED
from evaluate.intervals import Estimate
from evaluate.verdict import (
    Evidence,
    Word,
    items_needed,
    judge,
    percent,
    sentence,
    turned_worse,
)
from tests.evaluate.conftest import evidence, scores

PLANTED = {
    Word.OVERFITTING: ([1, 0.95, 0.92, 0.95, 0.99], [1, 0.94, 0.88, 0.82, 0.76]),
    Word.REGRESSING: ([1, 0.92, 0.97, 0.99], [1, 0.91, 0.95, 0.97]),
    Word.DIVERGED: ([1, 1.2, 1.5], [1, 1.2, 1.5]),
    Word.NO_EFFECT: ([1, 1, 1, 1], [1, 1, 1, 1]),
    Word.IMPROVING: ([1, 0.97, 0.94, 0.91], [1, 0.96, 0.93, 0.89]),
    Word.CONVERGED: ([1, 0.95, 0.921, 0.92, 0.92], [1, 0.94, 0.911, 0.91, 0.909]),
}


NOISE = {Word.NO_EFFECT: 0.001, Word.CONVERGED: 0.003}  # equivalence takes precision to show


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("word", PLANTED, ids=str)
def test_planted(word: Word, seed: int):
    planted = evidence(*PLANTED[word], seed=seed, noise=NOISE.get(word, 0.01))
    assert judge(planted) is word


@pytest.mark.parametrize("seed", range(8))
def test_a_widening_gap_alone_is_not_overfitting(seed: int):
    val, probe = [1, 0.95, 0.921, 0.92, 0.92], [1, 0.9, 0.8, 0.7, 0.6]
    healthy = evidence(val, probe, seed=seed, noise=0.003)
    assert judge(healthy) is Word.CONVERGED


def test_overfitting_a_run_that_never_beat_the_base():
    worse = evidence([1, 1.03, 1.08], [1, 0.9, 0.8])
    assert judge(worse) is Word.OVERFITTING
    assert worse.best == worse.kept() == 0
    assert "Keep the base model" in sentence(worse, (0, 10, 20))


def test_few_items_decide_nothing_whatever_they_show():
    few = evidence(*PLANTED[Word.OVERFITTING], items=SMALLEST_JUDGED - 1)
    assert judge(few) is Word.INCONCLUSIVE
    assert str(SMALLEST_JUDGED) in sentence(few, (0, 1, 2, 3, 4))
    enough = evidence(*PLANTED[Word.OVERFITTING], items=SMALLEST_JUDGED)
    assert judge(enough) is Word.OVERFITTING


def test_a_change_too_small_for_a_decimal_is_not_printed_as_none():
    assert percent(Estimate(-0.0612, -0.074, -0.049, 128)) == "-6.1 % [-7.4, -4.9]"
    assert percent(Estimate(-0.00004, -0.00006, -0.00002, 9)) == "-0.004 % [-0.006, -0.002]"
    assert percent(Estimate(0.0, 0.0, 0.0, 9)) == "+0.0 % [+0.0, +0.0]"
    assert percent(Estimate(math.nan, -math.inf, math.inf, 9)) == "+nan % [-inf, +inf]"


def test_noise_decides_nothing_and_says_how_many_items_would():
    noisy = evidence([1, 0.97, 0.96, 0.955], [1, 0.97, 0.96, 0.955], noise=0.3, seed=3)
    assert judge(noisy) is Word.INCONCLUSIVE
    assert items_needed(noisy) > 128
    assert items_needed(evidence(*PLANTED[Word.CONVERGED], noise=1e-6)) == SMALLEST_JUDGED


def test_not_a_number_is_divergence():
    broken = evidence([1, 0.9, 0.9], [1, 0.9, 0.9])
    broken.val[2, 5] = np.nan
    assert judge(broken) is Word.DIVERGED
    assert "not a number" in sentence(broken, (0, 1, 2))
    assert broken.best == 1
    assert broken.kept() == 1


def test_boundaries_of_no_effect():
    exact = {"noise": 0.0}
    assert judge(evidence([1, 1 - 0.0019], [1, 0.9], **exact)) is Word.NO_EFFECT
    assert judge(evidence([1, 1 - 0.0021], [1, 0.9], **exact)) is Word.IMPROVING
    assert judge(evidence([1, 1 + 0.0019], [1, 1.1], **exact)) is Word.NO_EFFECT
    assert judge(evidence([1, 1 + 0.0021], [1, 1.1], **exact)) is Word.DIVERGED


def test_boundary_of_overfitting_is_five_percent_of_the_gain():
    """The gain is 0.1, so that losing 0.005 or less of it is no news."""
    falling = [1, 0.9, 0.8]
    assert judge(evidence([1, 0.9, 0.9049], falling, noise=0)) is not Word.OVERFITTING
    assert judge(evidence([1, 0.9, 0.9051], falling, noise=0)) is Word.OVERFITTING


def test_order_of_items_changes_no_word():
    found = evidence(*PLANTED[Word.OVERFITTING])
    order = np.random.default_rng(0).permutation(128)
    shuffled = replace(found, val=found.val[:, order], probe=found.probe[:, order])
    assert judge(shuffled) is judge(found)
    assert shuffled.kept() == found.kept()


def test_kept_is_the_earliest_within_one_standard_error():
    plateau = scores([1, 0.95, 0.9201, 0.92, 0.9199], noise=0.02)
    found = Evidence(plateau, plateau)
    best = int(plateau.mean(axis=1).argmin())
    by_hand = next(
        row
        for row in range(5)
        if row == best
        or (d := plateau[row] - plateau[best]).mean() <= d.std(ddof=1) / np.sqrt(len(d))
    )
    assert found.kept() == by_hand
    assert 1 < found.kept() < 4  # it is neither the falling part nor simply the last one


def test_sentence_names_the_steps_and_the_interval():
    found = evidence(*PLANTED[Word.OVERFITTING])
    text = sentence(found, (0, 450, 900, 1350, 1800))
    assert turned_worse(found) == 3
    assert text.startswith("Since step 1,350: step 1,800 lost +7")
    assert f"Keep step 900: held-out loss {percent(found.change('val', 2, 0))}" in text


def test_evidence_needs_a_checkpoint():
    with pytest.raises(ValueError, match="at least one checkpoint"):
        Evidence(np.ones((1, 40)), np.ones((1, 40)))
