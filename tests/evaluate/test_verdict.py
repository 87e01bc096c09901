"""Each verdict is found where it was planted, on every seed, and not where it only looks like it."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from curate.decide.config import SMALLEST_JUDGED
from evaluate.verdict import groups_needed, judge, percent, sentence, turned_worse
from finetune.curve import HeldoutCurve
from finetune.early_stop import reason_to_stop
from finetune.intervals import Estimate
from finetune.rules import LOOKS, Evidence, Word, kept
from tests.evaluate.conftest import evidence, scores

PLANTED = {
    Word.OVERFITTING: ([1, 0.95, 0.92, 0.95, 0.99], [1, 0.94, 0.88, 0.82, 0.76]),
    Word.REGRESSING: ([1, 0.92, 0.97, 0.99], [1, 0.91, 0.95, 0.97]),
    Word.DIVERGED: ([1, 1.2, 1.5], [1, 1.2, 1.5]),
    Word.NO_EFFECT: ([1, 1, 1, 1], [1, 1, 1, 1]),
    Word.IMPROVING: ([1, 0.97, 0.94, 0.91], [1, 0.96, 0.93, 0.89]),
    Word.CONVERGED: ([1, 0.95, 0.921, 0.92, 0.92], [1, 0.94, 0.911, 0.91, 0.909]),
    Word.SLOWING: ([1, 0.95, 0.921, 0.925, 0.922], [1, 0.94, 0.911, 0.91, 0.91]),
}


WORSE = (Word.OVERFITTING, Word.REGRESSING, Word.DIVERGED)
NOISE = {
    Word.NO_EFFECT: 0.001,
    Word.CONVERGED: 0.003,
    Word.SLOWING: 0.02,
}  # equivalence takes precision to show


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


def test_a_training_that_started_with_an_export_says_so():
    val, train_probe = (scores([1, 0.8], seed=seed)[1] for seed in (0, 999))
    start = {"start_val": val, "start_train_probe": train_probe}
    lost = replace(evidence([1, 0.9, 0.95], [1, 0.9, 0.95]), **start)
    said = sentence(lost, (0, 10, 20), kept(lost))
    assert said.startswith("Training started with an export, whose held-out loss is -20.")
    assert "Since step 10 held-out loss is worse than at its best (where it started): by +1" in said
    better = replace(evidence([1, 0.7], [1, 0.7]), **start)
    said = sentence(better, (0, 10), kept(better))
    assert "against the base. Since that held-out loss changed by -" in said
    assert said.endswith("against the base.")


def test_overfitting_a_run_that_never_beat_the_base():
    worse = evidence([1, 1.03, 1.08], [1, 0.9, 0.8])
    assert judge(worse) is Word.OVERFITTING
    assert worse.best == kept(worse) == 0
    said = sentence(worse, (0, 10, 20), 0)
    assert "worse than at its best (the base)" in said
    assert "Keep the base model" in said


def test_few_items_decide_nothing_whatever_they_show():
    few = evidence(*PLANTED[Word.OVERFITTING], items=SMALLEST_JUDGED - 1)
    assert judge(few) is Word.INCONCLUSIVE
    assert str(SMALLEST_JUDGED) in sentence(few, (0, 1, 2, 3, 4), 0)
    enough = evidence(*PLANTED[Word.OVERFITTING], items=SMALLEST_JUDGED)
    assert judge(enough) is Word.OVERFITTING


def test_a_change_too_small_for_a_decimal_is_not_printed_as_none():
    assert percent(Estimate(-0.0612, -0.074, -0.049, 128, 9)) == "-6.1 % [-7.4, -4.9]"
    assert percent(Estimate(-0.00004, -0.00006, -0.00002, 9, 9)) == "-0.004 % [-0.006, -0.002]"
    assert percent(Estimate(0.0, 0.0, 0.0, 9, 9)) == "+0.0 % [+0.0, +0.0]"
    assert percent(Estimate(math.nan, -math.inf, math.inf, 9, 9)) == "+nan % [-inf, +inf]"


def test_noise_decides_nothing_and_says_how_many_items_would():
    noisy = evidence([1, 0.97, 0.96, 0.955], [1, 0.97, 0.96, 0.955], noise=0.3, seed=3)
    assert judge(noisy) is Word.INCONCLUSIVE
    assert groups_needed(noisy) > 128
    assert groups_needed(evidence(*PLANTED[Word.CONVERGED], noise=1e-6)) == SMALLEST_JUDGED


def test_not_a_number_is_divergence():
    broken = evidence([1, 0.9, 0.9], [1, 0.9, 0.9])
    broken.val[2, 5] = np.nan
    assert judge(broken) is Word.DIVERGED
    assert "not a number" in sentence(broken, (0, 1, 2), 1)
    assert broken.best == 1
    assert kept(broken) == 1


def test_boundaries_of_no_effect():
    exact = {"noise": 0.0}
    assert judge(evidence([1, 1 - 0.0019], [1, 0.9], **exact)) is Word.NO_EFFECT
    assert judge(evidence([1, 1 - 0.0021], [1, 0.9], **exact)) is Word.IMPROVING
    assert judge(evidence([1, 1 + 0.0019], [1, 1.1], **exact)) is Word.NO_EFFECT
    assert judge(evidence([1, 1 + 0.0021], [1, 1.1], **exact)) is Word.DIVERGED


def test_order_of_items_changes_no_word():
    found = evidence(*PLANTED[Word.OVERFITTING])
    order = np.random.default_rng(0).permutation(128)
    shuffled = replace(found, val=found.val[:, order], train_probe=found.train_probe[:, order])
    assert judge(shuffled) is judge(found)
    assert kept(shuffled) == kept(found)


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
    assert kept(found) == by_hand
    assert 1 < kept(found) < 4  # it is neither the falling part nor simply the last one


def test_sentence_names_the_steps_and_the_interval():
    found = evidence(*PLANTED[Word.OVERFITTING])
    text = sentence(found, (0, 450, 900, 1350, 1800), 2)
    assert turned_worse(found) == 3
    assert text.startswith(
        "Since step 1,350 held-out loss is worse than at its best (step 900): by +7"
    )
    assert "at step 1,800, while the loss on training pictures kept improving." in text
    assert f"Keep step 900: held-out loss {percent(found.change('val', 2, 0))}" in text


def as_curve(found: Evidence) -> HeldoutCurve:
    """What training would have measured: one noise level, so that losses are scores."""
    keys = [str(i) for i in range(found.val.shape[1])]
    curve = HeldoutCurve(keys, keys, keys, keys)
    for step, losses in enumerate(zip(found.val, found.train_probe, strict=True)):
        curve.add(step, step, *(row[:, None, None] for row in losses))
    return curve


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("word", PLANTED, ids=str)
def test_training_stops_for_what_the_verdict_says(word: Word, seed: int):
    planted = evidence(*PLANTED[word], seed=seed, noise=NOISE.get(word, 0.01))
    expected = word if word in WORSE else None
    assert reason_to_stop(as_curve(planted), patience=LOOKS) == expected


@pytest.mark.parametrize(
    ("items", "stops"), [(1, None), (2, None), (8, "overfitting"), (31, "overfitting")]
)
def test_training_stops_on_fewer_pictures_than_a_verdict_needs(items: int, stops: str | None):
    planted = evidence(*PLANTED[Word.OVERFITTING], items=items, noise=0.0)
    assert reason_to_stop(as_curve(planted), patience=LOOKS) == stops
    assert judge(planted) is Word.INCONCLUSIVE


def test_training_and_verdict_agree_on_runs_near_the_boundaries():
    rng, words = np.random.default_rng(0), []
    for seed in range(120):
        val, train_probe = (1 + np.cumsum(rng.normal(-0.002, 0.01, (2, 4)), axis=1)).tolist()
        found = evidence([1, *val], [1, *train_probe], seed=seed, noise=0.02)
        found = replace(
            found,
            val=found.val / found.val[0].mean(),
            train_probe=found.train_probe / found.train_probe[0].mean(),
        )
        word = judge(found)
        words.append(word)
        stops = reason_to_stop(as_curve(found), patience=LOOKS)
        goes_on = (
            stops is None and found.best == 0
        )  # a slow start may recover; a run that ended may not
        assert goes_on or stops == (word if word in WORSE else None)
    assert {Word.OVERFITTING, Word.DIVERGED, Word.REGRESSING, Word.IMPROVING} <= set(words)
