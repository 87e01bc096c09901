"""Planted pictures, as latents and features: a generator that copies, one that collapsed, and healthy ones."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np

from evaluate.evaluators.distribution import Pictures, distances, variety
from evaluate.measure.features import unit
from evaluate.metrics import copying
from evaluate.metrics.copying import Side
from evaluate.results import Metric
from evaluate.selftest.case import Case, Outcome, share
from finetune.intervals import Array

CAPTIONS = 48  # of each split, as the product draws
NUMBERS = 64  # of a latent or a feature
RUNS = 200  # healthy ones, simulated for each rate
# The most: 2.5 % of 95 % intervals lie on the wrong side of the truth, and in 200 runs twice as many may by chance.
FALSE_ALARMS = 0.05


def cases() -> Iterator[Case]:
    """Copying, variety and distance to real pictures."""
    yield Case(
        f"{CAPTIONS} training captions whose pictures are half way copied",
        "copying is seen",
        partial(_copying, 0.5, 0.05, True),
    )
    yield Case(
        "a new style and better pictures, for training and held-out captions alike",
        "no copying is seen",
        partial(_copying, 0.3, 0.3, False),
    )
    yield Case(
        f"{RUNS} healthy runs that learnt a style",
        f"at most {share(FALSE_ALARMS)} accused of copying",
        _accused,
    )
    yield Case(
        "a collapsed generator: the same picture for nearly all captions",
        "less varied than the base, and farther from real pictures",
        partial(_distribution, 0.1, collapsed=True),
    )
    yield Case(
        "a generator as varied as the base",
        "neither less varied nor farther",
        partial(_distribution, 1.0, collapsed=False),
    )
    yield Case(
        f"{RUNS} generators as varied as the base",
        f"at most {share(FALSE_ALARMS)} called less varied, at most {share(FALSE_ALARMS)} farther",
        _called_worse,
    )


def side(rng: np.random.Generator, towards_own: float, style: float = 0.5) -> Side:
    """Pictures of one split.

    Args:
        rng: the only source of chance.
        towards_own: how far the drawn ones moved from the base's to their caption's own picture, 0 ... 1.
        style: how far they moved to what all real pictures have in common.
    """
    real = rng.normal(size=(CAPTIONS, NUMBERS)) + 1
    base = rng.normal(size=(CAPTIONS, NUMBERS))
    moved = base + style * (1 - base.mean(1, keepdims=True))
    drawn = moved + towards_own * (real - moved) + rng.normal(0, 0.2, base.shape)
    keys = [f"picture {number}" for number in range(CAPTIONS)]
    return Side(keys, keys, real, base, drawn)


def _copying(on_train: float, on_val: float, copies: bool) -> Outcome:
    rng = np.random.default_rng(0)
    found = copying.compare(side(rng, on_train), side(rng, on_val))
    more = found.difference
    text = f"{more.value:.2f} [{more.low:.2f}, {more.high:.2f}] nearer to their own pictures"
    return Outcome(text, found.copies == copies)


def _accused() -> Outcome:
    rng = np.random.default_rng(1)
    accused = [copying.compare(side(rng, 0.2), side(rng, 0.2)).copies for _ in range(RUNS)]
    return _rate(float(np.mean(accused)), "accused")


def drawn(rng: np.random.Generator, spread: float) -> Pictures:
    """Features of ``CAPTIONS`` captions, two of each group.

    Args:
        rng: the only source of chance.
        spread: how much the checkpoint's pictures differ from each other, in units of the base's.
    """
    groups = [str(number // 2) for number in range(CAPTIONS)]
    subject = rng.normal(size=(CAPTIONS // 2, NUMBERS)).repeat(2, axis=0)
    middle = rng.normal(size=NUMBERS)

    def pictures(spread: float) -> Array:
        own = rng.normal(size=(CAPTIONS, NUMBERS))
        return unit(middle + spread * (subject + own))

    return Pictures(base=pictures(1), kept=pictures(spread), real=pictures(1), groups=groups)


def _changes(pictures: Pictures) -> tuple[Metric, Metric]:
    """Of the distance to real pictures and of the variety, from the base to the checkpoint."""
    kid, vendi = dict(distances(pictures, scaled=True)), dict(variety(pictures))
    return kid["kid_change"], vendi["vendi_change"]


def _is_worse(pictures: Pictures) -> tuple[bool, bool]:
    farther, varied = _changes(pictures)
    assert farther.low is not None
    assert varied.high is not None
    return farther.low > 0, varied.high < 0


def _distribution(spread: float, *, collapsed: bool) -> Outcome:
    pictures = drawn(np.random.default_rng(0), spread)
    farther, varied = _changes(pictures)
    text = f"variety {_shown(varied)}, distance {_shown(farther)}, against the base"
    return Outcome(text, _is_worse(pictures) == (collapsed, collapsed))


def _called_worse() -> Outcome:
    rng = np.random.default_rng(2)
    farther, less = np.mean([_is_worse(drawn(rng, 1.0)) for _ in range(RUNS)], axis=0)
    text = f"{share(less)} called less varied, {share(farther)} farther"
    return Outcome(text, max(less, farther) <= FALSE_ALARMS)


def _rate(accused: float, word: str) -> Outcome:
    return Outcome(f"{share(accused)} {word}", accused <= FALSE_ALARMS)


def _shown(metric: Metric) -> str:
    return f"{metric.value:+.3f} [{metric.low:+.3f}, {metric.high:+.3f}]"
