"""How often judgements are right or false in many simulated runs: coverage, false alarms, power."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np

from evaluate.selftest.case import Case, Outcome, share
from evaluate.selftest.simulation import coverage, simulated, stopped_at
from finetune.rules import Evidence, Word, word

INTERVALS = 1000  # simulated for each coverage
RUNS = 300  # simulated for each rate
COVERED = (0.92, 0.97)  # of nominal 95 % intervals
FALSE_ALARMS = {10: 0.02, 30: 0.03}  # the most, by the number of checkpoints
SEEN = 0.9  # the least, of runs that give back a third of their gain
BAD = (Word.OVERFITTING, Word.REGRESSING, Word.DIVERGED)


def cases() -> Iterator[Case]:
    """Coverage, false alarms and power."""
    for pictures in (32, 64, 128):
        yield Case(
            f"{INTERVALS} intervals, each of {pictures} held-out pictures drawn by group",
            f"{COVERED[0]:.0%} to {COVERED[1]:.0%} hold the truth",
            partial(_coverage, pictures),
        )
    for checkpoints, most in FALSE_ALARMS.items():
        for pictures in (32, 64, 128):
            yield Case(
                f"{RUNS} settled runs of {checkpoints} checkpoints, {pictures} pictures, a gain of 2 % that stays",
                f"at most {share(most)} called worse, and at most as many stopped",
                partial(_false_alarms, settled(checkpoints), pictures, most),
            )
        flat = [1.0] * (checkpoints + 1)
        yield Case(
            f"{RUNS} runs of {checkpoints} checkpoints without effect, 64 pictures",
            f"at most {share(most)} called worse, and at most as many stopped",
            partial(_false_alarms, (flat, flat), 64, most),
        )
    yield Case(
        f"{RUNS} slow starts, a little worse than the base at first, 64 pictures",
        "at most 2 % called worse or stopped",
        partial(_false_alarms, (SLOW_START, SLOW_START), 64, 0.02),
    )
    for pictures in (64, 128):
        yield Case(
            f"{RUNS} runs that give back 1.5 of 5 points, {pictures} pictures",
            f"at least {SEEN:.0%} called overfitting",
            partial(_power, pictures),
        )


Means = tuple[Sequence[float], Sequence[float]]  # of val and of the train probe

SLOW_START = [1, 1.0005, 1.001, 0.999, 0.97, 0.94, 0.91, 0.9, 0.9]
GIVES_BACK: Means = (
    [1, 0.98, 0.965, 0.955, 0.95, 0.95, 0.953, 0.957, 0.961, 0.965, 0.965],
    [1, *np.linspace(0.97, 0.85, 10)],
)


def settled(checkpoints: int) -> Means:
    """A gain of 2 % that stays, while the loss on training pictures keeps falling."""
    return [1, *[0.98] * checkpoints], [1, *np.linspace(0.97, 0.9, checkpoints)]


def many(means: Means, pictures: int, runs: int) -> list[Evidence]:
    """Simulated runs with these mean losses."""
    rng = np.random.default_rng(pictures)
    return [simulated(rng, *means, pictures) for _ in range(runs)]


def false_alarms(means: Means, pictures: int, runs: int) -> tuple[float, float]:
    """The shares of healthy runs that the verdict calls worse, and that training stops early."""
    found = many(means, pictures, runs)
    called = [word(each) in BAD for each in found]
    stopped = [stopped_at(each) is not None for each in found]
    return float(np.mean(called)), float(np.mean(stopped))


def power(pictures: int, runs: int) -> float:
    """The share of runs that give back 1.5 of 5 points which is called overfitting."""
    found = many(GIVES_BACK, pictures, runs)
    return float(np.mean([word(each) is Word.OVERFITTING for each in found]))


def _coverage(pictures: int) -> Outcome:
    held = coverage(np.random.default_rng(pictures), pictures, INTERVALS)
    return Outcome(f"{share(held)} hold it", COVERED[0] <= held <= COVERED[1])


def _false_alarms(means: Means, pictures: int, most: float) -> Outcome:
    called, stopped = false_alarms(means, pictures, RUNS)
    found = f"{share(called)} called worse, {share(stopped)} stopped"
    return Outcome(found, called <= most and stopped <= most)


def _power(pictures: int) -> Outcome:
    seen = power(pictures, RUNS)
    return Outcome(f"{share(seen)} called overfitting", seen >= SEEN)
