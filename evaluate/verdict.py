"""The verdict on a run: ordered rules over paired held-out and training losses, and what to keep.

A run is judged on held-out items and on as many *twins* from the training split. A widening gap
between the two is not overfitting: it widens in healthy runs as well. Held-out loss getting worse
than at its best checkpoint while the twins keep improving is.

Scores are relative to the base model per noise level (``finetune.heldout.relative``), so the base's
mean score is 1 and a difference of -0.05 is "5 % better than the base".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np

from curate.decide.config import SMALLEST_JUDGED
from curate.run.intervals import changes
from evaluate.intervals import Array, Bootstrap, Estimate, standard_error

NEGLIGIBLE = 0.002  # of the base's loss: a change inside ±0.2 % is no effect
SHARE_OF_GAIN = 0.05  # a change below 5 % of what the run gained is no news


class Word(StrEnum):
    """What a run did, in one word."""

    DIVERGED = "diverged"
    OVERFITTING = "overfitting"
    REGRESSING = "regressing"
    NO_EFFECT = "no_effect"
    IMPROVING = "improving"
    CONVERGED = "converged"
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True)
class Evidence:
    """Item scores of the base (row 0) and of every checkpoint in order of training (rows 1 ... K).

    Attributes:
        val: [K+1, N] on held-out items.
        probe: [K+1, M] on training twins.
        bootstrap: how intervals are made.
    """

    val: Array
    probe: Array
    bootstrap: Bootstrap = field(default_factory=Bootstrap)

    def __post_init__(self) -> None:
        if len(self.val) != len(self.probe) or len(self.val) < 2:
            raise ValueError(
                "evidence needs the base and at least one checkpoint on both splits, "
                f"got {self.val.shape} held-out and {self.probe.shape} training scores"
            )

    @property
    def last(self) -> int:
        """Row of the last checkpoint."""
        return len(self.val) - 1

    @property
    def best(self) -> int:
        """Row with the lowest finite mean held-out score; 0 where nothing beat the base."""
        means = self.val.mean(axis=1, dtype=np.float64)
        return int(np.argmin(np.where(np.isfinite(means), means, np.inf)))

    @property
    def window(self) -> int:
        """Row that the last checkpoint's progress is measured from: two checkpoints earlier."""
        return max(self.last - 2, 0)

    @property
    def tolerance(self) -> float:
        """The smallest difference that counts: 5 % of the gain, and never below 0.2 % of the base."""
        means = self.val.mean(axis=1, dtype=np.float64)
        return max(SHARE_OF_GAIN * float(means[0] - means[self.best]), NEGLIGIBLE * float(means[0]))

    def change(self, split: str, row: int, since: int, confidence: float = 0.95) -> Estimate:
        """Mean paired change of the score from row ``since`` to ``row``; negative is better."""
        scores = {"val": self.val, "probe": self.probe}[split]
        return self.bootstrap.mean(scores[row] - scores[since], confidence)

    def kept(self) -> int:
        """Row to keep: the earliest within one standard error of the best (0: keep the base).

        Breiman et al. (1984)'s one-standard-error rule, on paired differences. Early means less
        memorisation and less forgetting for a loss that cannot be told apart.
        """
        best = self.best
        for row in range(best):
            difference = self.val[row] - self.val[best]
            if difference.mean(dtype=np.float64) <= standard_error(difference):
                return row
        return best


def _too_few(e: Evidence) -> bool:
    return min(e.val.shape[1], e.probe.shape[1]) < SMALLEST_JUDGED


def _diverged(e: Evidence) -> bool:
    if not (np.isfinite(e.val[e.last]).all() and np.isfinite(e.probe[e.last]).all()):
        return True
    val, probe = e.change("val", e.last, 0), e.change("probe", e.last, 0)
    return min(val.low, probe.low) > 0 and min(val.value, probe.value) > NEGLIGIBLE


def _worse_than_best(e: Evidence) -> bool:
    change = e.change("val", e.last, e.best)
    return change.low > 0 and change.value > e.tolerance


def _overfitting(e: Evidence) -> bool:
    return _worse_than_best(e) and e.change("probe", e.last, e.best).high < 0


def _no_effect(e: Evidence) -> bool:
    change = e.change("val", e.last, 0)
    return change.low > -NEGLIGIBLE and change.high < NEGLIGIBLE


def _improving(e: Evidence) -> bool:
    change = e.change("val", e.last, e.window)
    return change.high < 0 and -change.value > e.tolerance


def _converged(e: Evidence) -> bool:
    """Two one-sided tests at 5 % (Schuirmann 1987): the 90 % interval inside the tolerance."""
    change = e.change("val", e.last, e.window, confidence=0.90)
    return -e.tolerance < change.low and change.high < e.tolerance


# In this order: the first that holds is the verdict.
RULES: tuple[tuple[Word, Callable[[Evidence], bool]], ...] = (
    (Word.INCONCLUSIVE, _too_few),
    (Word.DIVERGED, _diverged),
    (Word.OVERFITTING, _overfitting),
    (Word.REGRESSING, _worse_than_best),
    (Word.NO_EFFECT, _no_effect),
    (Word.IMPROVING, _improving),
    (Word.CONVERGED, _converged),
)


def judge(evidence: Evidence) -> Word:
    """The first rule that holds, else ``inconclusive``."""
    return next((word for word, holds in RULES if holds(evidence)), Word.INCONCLUSIVE)


def turned_worse(evidence: Evidence) -> int | None:
    """First row after the best one whose held-out score is certainly worse than the best's."""
    rows = range(evidence.best + 1, evidence.last + 1)
    return next((r for r in rows if evidence.change("val", r, evidence.best).low > 0), None)


def items_needed(evidence: Evidence) -> int:
    """Held-out items that would bring the interval of the last progress inside the tolerance."""
    change = evidence.change("val", evidence.last, evidence.window)
    half_width = (change.high - change.low) / 2
    ratio = half_width / evidence.tolerance
    return max(SMALLEST_JUDGED, int(np.ceil(change.n * ratio**2)))


def sentence(evidence: Evidence, steps: Sequence[int]) -> str:
    """The verdict in words with its numbers; ``steps`` [K+1] are optimizer steps, 0 for the base."""
    word = judge(evidence)
    last, best, kept = evidence.last, evidence.best, evidence.kept()
    total = percent(evidence.change("val", last, 0))
    if word is Word.INCONCLUSIVE and _too_few(evidence):
        val, probe = evidence.val.shape[1], evidence.probe.shape[1]
        return (
            f"Only {val} held-out and {probe} training pictures to compare; a verdict needs at least "
            f"{SMALLEST_JUDGED} of each."
        )
    if not np.isfinite(evidence.val[last]).all():
        start = f"The loss at step {steps[last]:,} is not a number."
    elif word is Word.DIVERGED:
        probe = percent(evidence.change("probe", last, 0))
        start = f"Worse than the base on held-out ({total}) and on training pairs ({probe})."
    elif word in (Word.OVERFITTING, Word.REGRESSING):
        since = steps[turned_worse(evidence) or last]
        lost = percent(evidence.change("val", last, best), "points")
        twins = "training pairs kept improving" if word is Word.OVERFITTING else (
            "training pairs did not improve either"
        )  # fmt: skip
        start = f"Since step {since:,}: step {steps[last]:,} lost {lost} to the best while {twins}."
    elif word is Word.NO_EFFECT:
        start = f"Held-out loss moved by {total}, inside ±{NEGLIGIBLE:.1%}."
    else:
        recent = percent(evidence.change("val", last, evidence.window), "points")
        start = f"Since step {steps[evidence.window]:,} held-out loss changed by {recent}."
    return f"{start} {_keep(evidence, steps, kept)}"


def _keep(evidence: Evidence, steps: Sequence[int], kept: int) -> str:
    if kept == 0:
        return "Keep the base model: no checkpoint is better on held-out pairs."
    change = percent(evidence.change("val", kept, 0))
    return f"Keep step {steps[kept]:,}: held-out loss {change} against the base."


def percent(estimate: Estimate, unit: str = "%") -> str:
    """An estimate of a fraction as percent with its interval.

    >>> percent(Estimate(-0.0612, -0.074, -0.049, 128))
    '-6.1 % [-7.4, -4.9]'
    """
    value, low, high = changes(estimate.value, estimate.low, estimate.high)
    return f"{value} {unit} [{low}, {high}]"
