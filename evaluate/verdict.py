"""The verdict on a run in one word and one sentence, and which checkpoint to keep.

The rules of overfitting and divergence are those that stop a training early (``finetune.overfitting``,
which says how the two differ).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import StrEnum

import numpy as np

from curate.decide.config import SMALLEST_JUDGED
from curate.run.intervals import changes
from finetune.intervals import Estimate, standard_error
from finetune.overfitting import NEGLIGIBLE, Evidence, diverged, overfitting, worse_than_best


class Word(StrEnum):
    """What a run did, in one word."""

    DIVERGED = "diverged"
    OVERFITTING = "overfitting"
    REGRESSING = "regressing"
    NO_EFFECT = "no_effect"
    IMPROVING = "improving"
    CONVERGED = "converged"
    INCONCLUSIVE = "inconclusive"


def too_few(evidence: Evidence) -> bool:
    """Whether there are fewer pictures than a verdict needs."""
    return evidence.pictures < SMALLEST_JUDGED


def kept(evidence: Evidence) -> int:
    """Row of the checkpoint to keep: the earliest within one standard error of the best (0: the base).

    The one-standard-error rule of Breiman et al. (1984) on paired differences. Of checkpoints whose
    losses do not clearly differ, the earlier has memorised and forgotten less.
    """
    best = evidence.best
    for row in range(best):
        difference = evidence.val[row] - evidence.val[best]
        if difference.mean(dtype=np.float64) <= standard_error(difference):
            return row
    return best


def recent(evidence: Evidence) -> int:
    """Row that recent progress is measured from: two checkpoints before the last."""
    return max(evidence.last - 2, 0)


def _no_effect(e: Evidence) -> bool:
    change = e.change("val", e.last, 0)
    return change.low > -NEGLIGIBLE and change.high < NEGLIGIBLE


def _improving(e: Evidence) -> bool:
    change = e.change("val", e.last, recent(e))
    return change.high < 0 and -change.value > e.tolerance


def _converged(e: Evidence) -> bool:
    """Two one-sided tests at 5 % (Schuirmann 1987): the 90 % interval lies within the tolerance."""
    change = e.change("val", e.last, recent(e), confidence=0.90)
    return -e.tolerance < change.low and change.high < e.tolerance


# In this order: the first that holds is the verdict.
RULES: tuple[tuple[Word, Callable[[Evidence], bool]], ...] = (
    (Word.INCONCLUSIVE, too_few),
    (Word.DIVERGED, diverged),
    (Word.OVERFITTING, overfitting),
    (Word.REGRESSING, worse_than_best),
    (Word.NO_EFFECT, _no_effect),
    (Word.IMPROVING, _improving),
    (Word.CONVERGED, _converged),
)


def judge(evidence: Evidence) -> Word:
    """The first rule that holds, else ``inconclusive``."""
    return next((word for word, holds in RULES if holds(evidence)), Word.INCONCLUSIVE)


def turned_worse(evidence: Evidence) -> int | None:
    """First row after the best whose held-out score is worse than the best's, interval and all."""
    rows = range(evidence.best + 1, evidence.last + 1)
    return next((r for r in rows if evidence.change("val", r, evidence.best).low > 0), None)


def items_needed(evidence: Evidence) -> int:
    """Held-out pictures that would narrow the interval of the recent progress to the tolerance."""
    change = evidence.change("val", evidence.last, recent(evidence))
    half_width = (change.high - change.low) / 2
    ratio = half_width / evidence.tolerance
    return max(SMALLEST_JUDGED, int(np.ceil(change.n * ratio**2)))


def sentence(evidence: Evidence, steps: Sequence[int]) -> str:
    """The verdict in words with its numbers; ``steps`` [K+1] are optimizer steps, 0 for the base."""
    word, last = judge(evidence), evidence.last
    if word is Word.INCONCLUSIVE and too_few(evidence):
        val, train = evidence.val.shape[1], evidence.train_probe.shape[1]
        return (
            f"Only {val} held-out and {train} training pictures to compare; a verdict needs at least "
            f"{SMALLEST_JUDGED} of each."
        )
    total = percent(evidence.change("val", last, 0))
    if not np.isfinite(evidence.val[last]).all():
        found = f"The loss at step {steps[last]:,} is not a number."
    elif word is Word.DIVERGED:
        train = percent(evidence.change("train_probe", last, 0))
        found = f"Worse than the base on held-out ({total}) and on training pictures ({train})."
    elif word in (Word.OVERFITTING, Word.REGRESSING):
        found = _lost(evidence, steps, word)
    elif word is Word.NO_EFFECT:
        found = f"Held-out loss changed by {total}, within ±{NEGLIGIBLE:.1%}."
    else:
        since = recent(evidence)
        progress = percent(evidence.change("val", last, since), "points")
        found = f"Since step {steps[since]:,} held-out loss changed by {progress}."
    return f"{found} {_keep(evidence, steps)}"


def _lost(evidence: Evidence, steps: Sequence[int], word: Word) -> str:
    last, best = evidence.last, evidence.best
    since = steps[turned_worse(evidence) or last]
    lost = percent(evidence.change("val", last, best), "points")
    training = "kept improving" if word is Word.OVERFITTING else "did not improve either"
    return (
        f"Since step {since:,} held-out loss is worse than at its best "
        f"({f'step {steps[best]:,}' if best else 'the base'}): by {lost} at step {steps[last]:,}, while "
        f"the loss on training pictures {training}."
    )


def _keep(evidence: Evidence, steps: Sequence[int]) -> str:
    row = kept(evidence)
    if row == 0:
        return "Keep the base model: no checkpoint is better on held-out pictures."
    change = percent(evidence.change("val", row, 0))
    return f"Keep step {steps[row]:,}: held-out loss {change} against the base."


def percent(estimate: Estimate, unit: str = "%") -> str:
    """An estimate of a fraction as percent with its interval.

    >>> percent(Estimate(-0.0612, -0.074, -0.049, 128))
    '-6.1 % [-7.4, -4.9]'
    """
    value, low, high = changes(estimate.value, estimate.low, estimate.high)
    return f"{value} {unit} [{low}, {high}]"
