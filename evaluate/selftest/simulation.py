"""Simulated runs whose truth is known, over pictures that are drawn by duplicate group as a split draws them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from finetune.intervals import Array, estimate
from finetune.rules import LOOKS, Evidence, symptom

# Of the demo's 135 groups: most have one picture, a few have many; a design effect of about 4.
SIZES = np.array([1] * 85 + [2] * 18 + [3] * 10 + [6] * 14 + [12] * 5 + [20] * 3)
# The demo's variances: a checkpoint's score wanders by 0.8 % within a group and by 0.4 % within a picture.
GROUP_SD, PICTURE_SD = 0.008, 0.004
_EFFECT_SD = 0.4  # by which share groups gain more or less than the mean

TRUE_MEAN = 2.0  # of `skewed`


def drawn_groups(rng: np.random.Generator, pictures: int) -> list[str]:
    """The group of each of ``pictures``, a random part of a split of at least twice as many."""
    held_out: list[str] = []
    while len(held_out) < 2 * pictures:
        number = len(set(held_out))
        held_out += [str(number)] * int(rng.choice(SIZES))
    return [held_out[index] for index in rng.permutation(len(held_out))[:pictures]]


def simulated(
    rng: np.random.Generator,
    val: Sequence[float],
    train_probe: Sequence[float],
    pictures: int,
    wander: float = 1.0,
) -> Evidence:
    """A run with planted mean scores.

    Args:
        rng: the only source of chance.
        val, train_probe: [K+1], the mean score of the base, 1, and of each checkpoint.
        pictures: of each of the two sets.
        wander: how much the scores wander from checkpoint to checkpoint, in units of the demo's.
    """
    sides = []
    for means in (val, train_probe):
        groups = drawn_groups(rng, pictures)
        codes = np.unique(groups, return_inverse=True)[1]
        count = int(codes.max()) + 1
        effect = rng.normal(1, _EFFECT_SD, count)[codes]
        shared = rng.normal(0, wander * GROUP_SD, (len(means), count))[:, codes]
        scores = 1 + (np.array(means)[:, None] - 1) * effect + shared
        scores += rng.normal(0, wander * PICTURE_SD, scores.shape)
        scores[0] = 1
        sides.append((scores, groups))
    (one, ones), (other, others) = sides
    return Evidence.of(one, other, ones, others)


def until(evidence: Evidence, row: int) -> Evidence:
    """What was known when the checkpoint of ``row`` was the last."""
    return Evidence(
        evidence.val[: row + 1],
        evidence.train_probe[: row + 1],
        evidence.val_n,
        evidence.train_probe_n,
    )


def stopped_at(evidence: Evidence) -> int | None:
    """The row of the evaluation at which training would have ended early; None if at none."""
    looks = range(LOOKS, evidence.last + 1)
    return next((row for row in looks if symptom(until(evidence, row))), None)


def skewed(rng: np.random.Generator, groups: Sequence[str]) -> Array:
    """[N], values whose true mean is ``TRUE_MEAN``: a skewed one for each group, and noise of each picture."""
    codes = np.unique(list(groups), return_inverse=True)[1]
    shared = rng.gamma(4.0, 0.5, int(codes.max()) + 1)[codes]
    return shared + rng.normal(0, 0.3, len(codes))


def coverage(rng: np.random.Generator, pictures: int, runs: int, *, grouped: bool = True) -> float:
    """The share of nominal 95 % intervals that hold the true mean.

    Args:
        rng: the only source of chance.
        pictures: drawn for each interval.
        runs: how many intervals.
        grouped: whether the interval knows the groups, as all of the product's do.
    """
    covered = []
    for _ in range(runs):
        groups = drawn_groups(rng, pictures)
        found = estimate(skewed(rng, groups), groups if grouped else None)
        covered.append(found.low <= TRUE_MEAN <= found.high)
    return float(np.mean(covered))
