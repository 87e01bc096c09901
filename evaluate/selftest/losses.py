"""Planted held-out losses: the word of the verdict, the checkpoint that is kept, and where training stops."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from evaluate import verdict
from evaluate.selftest.case import Case, Outcome
from evaluate.selftest.simulation import simulated, stopped_at
from finetune import rules
from finetune.rules import Evidence, Word

PICTURES = 128  # of each set, in about 60 groups


@dataclass(frozen=True, slots=True)
class Run:
    """A run with planted losses.

    Attributes:
        planted: what it is.
        val, train_probe: [K+1] mean losses of the base, 1, and of each checkpoint.
        words: of which the verdict has to be one.
        kept: rows of which the checkpoint to keep has to be one; 0 is the base.
        stop: rows of which the evaluation that ends training has to be one; none: training must not end early.
        wander: of the losses from checkpoint to checkpoint, in units of the demo's.
    """

    planted: str
    val: Sequence[float]
    train_probe: Sequence[float]
    words: Sequence[Word]
    kept: Sequence[int]
    stop: Sequence[int] = ()
    wander: float = 1.0

    def evidence(self, seed: int = 0) -> Evidence:
        """Scores of ``PICTURES`` pictures of each set."""
        rng = np.random.default_rng([seed, *self.planted.encode()])
        return simulated(rng, self.val, self.train_probe, PICTURES, self.wander)


def _falling(end: float, checkpoints: int) -> list[float]:
    return [1.0, *np.linspace(1 - (1 - end) / checkpoints, end, checkpoints)]


_OVERFITTING = [1, 0.97, 0.95, 0.94, 0.945, 0.955, 0.965, 0.975]
_REGRESSING = [1, 0.95, 0.92, 0.90, 0.92, 0.94, 0.95, 0.95]
_SLOW = [1, 1.0005, 1.001, 0.999, 0.97, 0.94, 0.91, 0.88]
_SLOWING = [1, 0.92, 0.87, 0.84, 0.833, 0.832]
_SETTLED = [1, 0.95, *[0.90] * 28]

RUNS = (
    Run("a run without effect", [1.0] * 9, [1.0] * 9, [Word.NO_EFFECT], [0], wander=0.05),
    Run(
        "overfitting: held-out loss turns at checkpoint 3, training loss falls on",
        _OVERFITTING,
        _falling(0.75, 7),
        [Word.OVERFITTING],
        [2, 3],
        [5, 6, 7],
    ),
    Run(
        "a run that gives back half of its gain on both sets of pictures",
        _REGRESSING,
        _REGRESSING,
        [Word.REGRESSING],
        [2, 3],
        [5, 6],
    ),
    Run(
        "a run that diverges",
        [1, 1.05, 1.2, 1.5],
        [1, 1.05, 1.2, 1.5],
        [Word.DIVERGED],
        [0],
        [2, 3],
    ),
    Run(
        "a slow start, a little worse than the base, then 12 % better",
        _SLOW,
        _SLOW,
        [Word.IMPROVING],
        [7],
    ),
    Run(
        "settled for 29 checkpoints at -10 %, while training loss falls on",
        _SETTLED,
        [1, 0.95, *np.linspace(0.9, 0.7, 28)],
        [Word.CONVERGED, Word.SLOWING],
        range(2, 30),
    ),
    Run(
        "a run that keeps improving",
        _falling(0.80, 6),
        _falling(0.78, 6),
        [Word.IMPROVING],
        [6],
    ),
    Run(
        "a run that hardly improves any more, on losses that wander much",
        _SLOWING,
        _SLOWING,
        [Word.SLOWING],
        [3, 4, 5],
        wander=4.0,
    ),
)


def cases() -> Iterator[Case]:
    """One for each run."""
    for run in RUNS:
        expected = f"{' or '.join(run.words)}; keep {_checkpoints(run.kept)}; {_stop(run)}"
        yield Case(run.planted, expected, partial(judge, run))


def judge(run: Run) -> Outcome:
    """The verdict's word, the kept checkpoint and the early stop of a planted run."""
    evidence = run.evidence()
    word, kept, stop = verdict.judge(evidence), rules.kept(evidence), stopped_at(evidence)
    right = word in run.words and kept in run.kept
    right = right and (stop in run.stop if run.stop else stop is None)
    stopped = f"stops at checkpoint {stop}" if stop else "no early stop"
    return Outcome(f"{word}; keeps {_checkpoints([kept])}; {stopped}", right)


def _checkpoints(rows: Sequence[int]) -> str:
    if list(rows) == [0]:
        return "the base"
    first, last = rows[0], rows[-1]
    return f"checkpoint {first}" if first == last else f"checkpoint {first} to {last}"


def _stop(run: Run) -> str:
    return f"stop at {_checkpoints(run.stop)}" if run.stop else "no early stop"
