"""The rules that judge held-out losses: when a training stops early, and what the verdict calls it.

Both use the same rules, margins and corrections. They differ in how many groups of pictures they need.
A verdict describes the model, so it needs as many as make a 95 % interval trustworthy
(``curate.decide.config.SMALLEST_JUDGED``). An early stop only saves time, and the best checkpoint is
exported all the same. So it needs no more than an interval does, ``FEWEST_TO_STOP``, and protects small
data sets too, which overfit first.

Two sets of pictures are measured: held-out ones, and as many of the training pictures (the train
probe). A widening gap between the two is not overfitting, it widens in healthy runs too. Held-out
loss that got worse than at its best checkpoint while training loss kept improving is.

A run is looked at as often as it is evaluated, and the best of many looks is partly luck. So "worse"
has to hold at ``LOOKS`` evaluations in a row, each at a confidence that is corrected for the number of
looks (Bonferroni). Without both, a settled run of 30 checkpoints was called overfitting in 35 % of
simulations and stopped in 59 %.

Scores are losses relative to the base model (``finetune.heldout.relative``): the base's mean is 1,
and a difference of -0.05 means 5 % better than the base.

A training may start with an export instead of the base (``method.init``). What that is better or worse than
the base is not the training's doing. So trend and symptoms are judged against what it started with, and the
checkpoint to keep against the base.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Literal

import numpy as np

from finetune.intervals import Array, Estimate, group_means, of_groups, standard_error

NEGLIGIBLE = 0.002  # of the base's loss: a smaller change does not count
FEWEST_TO_STOP = 2  # groups of each set; one alone has no interval
SHARE_OF_GAIN = 0.05  # of what the run gained at its best: losing less than this does not count
LOOKS = 2  # evaluations in a row that have to show that a run got worse
ERROR = 0.05  # of an interval, shared by the looks at a run

START: Final = "start"
"""In place of a row: what training started with, where that is not the base."""
Row = int | Literal["start"]


class Word(StrEnum):
    """What a run did, in one word."""

    DIVERGED = "diverged"
    OVERFITTING = "overfitting"
    REGRESSING = "regressing"
    NO_EFFECT = "no_effect"
    IMPROVING = "improving"
    CONVERGED = "converged"
    SLOWING = "slowing"
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True)
class Evidence:
    """Scores by duplicate group of the base (row 0) and of every checkpoint in order of training (1 ... K).

    Attributes:
        val: [K+1, G] on held-out pictures.
        train_probe: [K+1, H] on training pictures.
        val_n, train_probe_n: how many pictures are in these groups; 0 means one in each.
        start_val, start_train_probe: [G] and [H] of what training started with; None where that was the base.

    Raises:
        ValueError: there is no checkpoint, or the two differ in their number.
    """

    val: Array
    train_probe: Array
    val_n: int = 0
    train_probe_n: int = 0
    start_val: Array | None = None
    start_train_probe: Array | None = None

    def __post_init__(self) -> None:
        if len(self.val) != len(self.train_probe) or len(self.val) < 2:
            raise ValueError(
                "evidence needs the base and at least one checkpoint on both splits, "
                f"got {self.val.shape} held-out and {self.train_probe.shape} training scores"
            )

    @classmethod
    def of(
        cls,
        val: Array,
        train_probe: Array,
        val_groups: Sequence[str],
        train_probe_groups: Sequence[str],
        start: tuple[Array, Array] | None = None,
    ) -> Evidence:
        """From scores by picture, [K+1, N] and [K+1, M], and the group of each picture, [N] and [M].

        ``start``: those of what training started with, [N] and [M], where that was not the base.
        """
        return cls(
            group_means(val.T, val_groups).T,
            group_means(train_probe.T, train_probe_groups).T,
            len(val_groups),
            len(train_probe_groups),
            group_means(start[0], val_groups) if start else None,
            group_means(start[1], train_probe_groups) if start else None,
        )

    @property
    def groups(self) -> int:
        """How many there are on the side that has fewer."""
        return min(self.val.shape[1], self.train_probe.shape[1])

    @property
    def last(self) -> int:
        """Row of the last checkpoint; also how many looks there were at the run."""
        return len(self.val) - 1

    @property
    def best(self) -> int:
        """Row with the lowest finite mean held-out score; 0 where no checkpoint beat the base."""
        means = self.val.mean(axis=1, dtype=np.float64)
        return int(np.argmin(np.where(np.isfinite(means), means, np.inf)))

    @property
    def first(self) -> Row:
        """What training started with: the base, row 0, or ``START``."""
        return 0 if self.start_val is None else START

    @property
    def peak(self) -> Row:
        """Where training was at its best, from what it started with: what the last checkpoints are compared with.

        Without a start of its own that is ``best``.
        """
        if self.start_val is None:
            return self.best
        means = self.val[1:].mean(axis=1, dtype=np.float64)
        row = int(np.argmin(np.where(np.isfinite(means), means, np.inf))) + 1
        return START if self._mean(START) <= means[row - 1] or np.isnan(means[row - 1]) else row

    @property
    def recent(self) -> Row:
        """What recent progress is measured from: two checkpoints before the last, or what training started with."""
        return self.last - 2 if self.last > 2 else self.first

    @property
    def tolerance(self) -> float:
        """The smallest difference that counts: 5 % of the gain, and at least 0.2 % of the base's loss."""
        gain = self._mean(self.first) - self._mean(self.peak)
        return max(SHARE_OF_GAIN * gain, NEGLIGIBLE * self._mean(0))

    def _mean(self, row: Row) -> float:
        return float(self.scores("val", row).mean(dtype=np.float64))

    @property
    def corrected(self) -> float:
        """Confidence of each look's interval, so that all looks together err in 5 % of cases."""
        return 1 - ERROR / self.last

    def scores(self, split: str, row: Row) -> Array:
        """Those by group of a row, or of ``START``, on ``val`` [G] or ``train_probe`` [H]."""
        if isinstance(row, int):
            return {"val": self.val, "train_probe": self.train_probe}[split][row]
        found = {"val": self.start_val, "train_probe": self.start_train_probe}[split]
        assert found is not None, "training started with the base"
        return found

    def change(self, split: str, row: Row, since: Row, confidence: float = 1 - ERROR) -> Estimate:
        """Mean paired change of the score from row ``since`` to ``row``; negative is better.

        Args:
            split: ``val`` or ``train_probe``.
            row, since: rows of the evidence, or ``START``.
            confidence: of the interval.
        """
        difference = self.scores(split, row) - self.scores(split, since)
        n = {"val": self.val_n, "train_probe": self.train_probe_n}[split]
        return of_groups(difference, n or len(difference), confidence)


def diverged(evidence: Evidence, looks: int = LOOKS) -> bool:
    """Whether the run is worse than the base, and than it started, on both sets of pictures, or not finite."""
    last = evidence.last
    if not is_finite(evidence):
        return True
    changes = [
        evidence.change(split, row, since, evidence.corrected)
        for split in ("val", "train_probe")
        for row in range(max(1, last - looks + 1), last + 1)
        for since in dict.fromkeys((0, evidence.first))
    ]
    return all(change.low > NEGLIGIBLE for change in changes)


def is_finite(evidence: Evidence) -> bool:
    """Whether the last checkpoint's losses are numbers."""
    last = evidence.last
    return bool(
        np.isfinite(evidence.val[last]).all() and np.isfinite(evidence.train_probe[last]).all()
    )


def is_worse(evidence: Evidence, row: int) -> bool:
    """Whether a row lost more than the tolerance on held-out pictures since the best one."""
    change = evidence.change("val", row, evidence.peak, evidence.corrected)
    return change.low > 0 and change.value > evidence.tolerance


def worse_than_best(evidence: Evidence, looks: int = LOOKS) -> bool:
    """Whether each of the last ``looks`` checkpoints did so; the best one is not among them."""
    rows, peak = range(evidence.last - looks + 1, evidence.last + 1), evidence.peak
    return (0 if peak == START else peak) < rows[0] and all(is_worse(evidence, row) for row in rows)


def overfitting(evidence: Evidence, looks: int = LOOKS) -> bool:
    """Whether they did so while training pictures kept improving."""
    return (
        worse_than_best(evidence, looks)
        and evidence.change("train_probe", evidence.last, evidence.peak).high < 0
    )


def symptom(
    evidence: Evidence, looks: int = LOOKS
) -> Literal["diverged", "overfitting", "regressing"] | None:
    """Why training should end at the last checkpoint, judged by all before it.

    The words are the verdict's. Fewer groups than ``FEWEST_TO_STOP`` show nothing, and a run that started
    worse than the base and is getting better goes on.
    """
    if evidence.groups < FEWEST_TO_STOP or _recovers(evidence):
        return None
    if diverged(evidence, looks):
        return "diverged"
    if not worse_than_best(evidence, looks):
        return None
    return "overfitting" if overfitting(evidence, looks) else "regressing"


def _recovers(e: Evidence) -> bool:
    """Whether no checkpoint has beaten the base yet, and the last one is better than the one before."""
    return (
        is_finite(e)
        and e.best == 0
        and e.last > 1
        and e.change("val", e.last, e.last - 1, e.corrected).high < 0
    )


def _no_effect(e: Evidence) -> bool:
    """At the end as it started; and it was not, for all that is known, better than that at its best."""
    change = e.change("val", e.last, e.first)
    gained = e.change("val", e.peak, e.first, e.corrected).high < -NEGLIGIBLE
    return change.low > -NEGLIGIBLE and change.high < NEGLIGIBLE and not gained


def _improving(e: Evidence) -> bool:
    change = e.change("val", e.last, e.recent)
    return change.high < 0 and -change.value > e.tolerance and not is_worse(e, e.last)


def _converged(e: Evidence) -> bool:
    """Two one-sided tests at 5 % (Schuirmann 1987): the 90 % interval lies within the tolerance."""
    change = e.change("val", e.last, e.recent, confidence=1 - 2 * ERROR)
    return -e.tolerance < change.low and change.high < e.tolerance


def _slowing(e: Evidence) -> bool:
    """Better than it started; whether the loss still falls, these pictures do not show."""
    return e.change("val", e.last, e.first).high < 0


# In this order: the first that holds is the word.
RULES: tuple[tuple[Word, Callable[[Evidence], bool]], ...] = (
    (Word.DIVERGED, diverged),
    (Word.OVERFITTING, overfitting),
    (Word.REGRESSING, worse_than_best),
    (Word.NO_EFFECT, _no_effect),
    (Word.IMPROVING, _improving),
    (Word.CONVERGED, _converged),
    (Word.SLOWING, _slowing),
)


def word(evidence: Evidence) -> Word:
    """The first rule that holds, else ``inconclusive``."""
    return next((each for each, holds in RULES if holds(evidence)), Word.INCONCLUSIVE)


def kept(evidence: Evidence) -> int:
    """Row of the checkpoint to keep: the earliest within one standard error of the best (0: the base).

    The one-standard-error rule of Breiman et al. (1984) on paired differences. Of checkpoints whose
    losses do not clearly differ, the earlier has memorised and forgotten less. Of a run without effect that
    started with the base, the base is kept.
    """
    if evidence.first == 0 and word(evidence) is Word.NO_EFFECT:
        return 0
    best = evidence.best
    for row in range(best):
        difference = evidence.val[row] - evidence.val[best]
        error = standard_error(difference) if len(difference) > 1 else 0.0
        if difference.mean(dtype=np.float64) <= error:
            return row
    return best
