"""Detect overfitting and divergence, for early stopping and for the verdict.

Both call :func:`diverged` and :func:`overfitting`, with the same interval and the same tolerance. They
differ in how many pictures they need. A verdict describes the model, so it needs as many as make a 95 %
interval trustworthy (``curate.decide.config.SMALLEST_JUDGED``). An early stop only saves time: it takes
several evaluations in a row that show the symptom, and the best checkpoint is exported all the same. So
it needs no more than an interval does, ``FEWEST_TO_STOP``, and protects small data sets too, which
overfit first.

Two sets of pictures are measured: held-out ones, and as many of the training pictures (the train
probe). A widening gap between the two is not overfitting, it widens in healthy runs too. Held-out
loss that got worse than at its best checkpoint while training loss kept improving is.

Scores are losses relative to the base model (``finetune.heldout.relative``): the base's mean is 1,
and a difference of -0.05 means 5 % better than the base.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from finetune.intervals import Array, Bootstrap, Estimate

NEGLIGIBLE = 0.002  # of the base's loss: a smaller change does not count
FEWEST_TO_STOP = 2  # pictures of each set; one alone has an interval of no width, whatever it shows
SHARE_OF_GAIN = 0.05  # of what the run gained at its best: losing less than this does not count


@dataclass(frozen=True)
class Evidence:
    """Scores by picture of the base (row 0) and of every checkpoint in order of training (1 ... K).

    Attributes:
        val: [K+1, N] on held-out pictures.
        train_probe: [K+1, M] on training pictures.
        bootstrap: how intervals are computed.

    Raises:
        ValueError: there is no checkpoint, or the two differ in their number.
    """

    val: Array
    train_probe: Array
    bootstrap: Bootstrap = field(default_factory=Bootstrap)

    def __post_init__(self) -> None:
        if len(self.val) != len(self.train_probe) or len(self.val) < 2:
            raise ValueError(
                "evidence needs the base and at least one checkpoint on both splits, "
                f"got {self.val.shape} held-out and {self.train_probe.shape} training scores"
            )

    @property
    def pictures(self) -> int:
        """How many there are on the smaller side."""
        return min(self.val.shape[1], self.train_probe.shape[1])

    @property
    def last(self) -> int:
        """Row of the last checkpoint."""
        return len(self.val) - 1

    @property
    def best(self) -> int:
        """Row with the lowest finite mean held-out score; 0 where no checkpoint beat the base."""
        means = self.val.mean(axis=1, dtype=np.float64)
        return int(np.argmin(np.where(np.isfinite(means), means, np.inf)))

    @property
    def tolerance(self) -> float:
        """The smallest difference that counts: 5 % of the gain, and at least 0.2 % of the base's loss."""
        means = self.val.mean(axis=1, dtype=np.float64)
        return max(SHARE_OF_GAIN * float(means[0] - means[self.best]), NEGLIGIBLE * float(means[0]))

    def change(self, split: str, row: int, since: int, confidence: float = 0.95) -> Estimate:
        """Mean paired change of the score from row ``since`` to ``row``; negative is better.

        Args:
            split: ``val`` or ``train_probe``.
            row, since: rows of the evidence.
            confidence: of the interval.
        """
        scores = {"val": self.val, "train_probe": self.train_probe}[split]
        return self.bootstrap.mean(scores[row] - scores[since], confidence)


def diverged(evidence: Evidence) -> bool:
    """Whether the last checkpoint is worse than the base on both sets of pictures, or not finite."""
    last = evidence.last
    if not (
        np.isfinite(evidence.val[last]).all() and np.isfinite(evidence.train_probe[last]).all()
    ):
        return True
    changes = [evidence.change(split, last, 0) for split in ("val", "train_probe")]
    return all(change.low > 0 and change.value > NEGLIGIBLE for change in changes)


def worse_than_best(evidence: Evidence) -> bool:
    """Whether the last checkpoint lost more than the tolerance on held-out pictures since the best one."""
    change = evidence.change("val", evidence.last, evidence.best)
    return change.low > 0 and change.value > evidence.tolerance


def overfitting(evidence: Evidence) -> bool:
    """Whether it did so while training pictures kept improving."""
    return (
        worse_than_best(evidence)
        and evidence.change("train_probe", evidence.last, evidence.best).high < 0
    )


def symptom(evidence: Evidence) -> Literal["diverged", "overfitting"] | None:
    """Why training should end at the last checkpoint, judged by all before it.

    The words are the verdict's. Fewer pictures than ``FEWEST_TO_STOP`` show nothing.
    """
    if evidence.pictures < FEWEST_TO_STOP:
        return None
    if diverged(evidence):
        return "diverged"
    return "overfitting" if overfitting(evidence) else None
