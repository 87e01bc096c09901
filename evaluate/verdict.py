"""The verdict on a run in one word and one sentence; its rules are in ``finetune.rules``."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from curate.decide.config import SMALLEST_JUDGED
from curate.run.intervals import changes
from finetune import rules
from finetune.intervals import Estimate
from finetune.rules import NEGLIGIBLE, START, Evidence, Row, Word


def too_few(evidence: Evidence) -> bool:
    """Whether there are fewer groups of pictures than a verdict needs."""
    return evidence.groups < SMALLEST_JUDGED


def judge(evidence: Evidence) -> Word:
    """The word; ``inconclusive`` where there are too few groups of pictures."""
    return Word.INCONCLUSIVE if too_few(evidence) else rules.word(evidence)


def turned_worse(evidence: Evidence) -> int:
    """The first of the last rows that are all worse on held-out pictures than the best; at least the last."""
    row, peak = evidence.last, evidence.peak
    while row - 1 > (0 if peak == START else peak) and rules.is_worse(evidence, row - 1):
        row -= 1
    return row


def groups_needed(evidence: Evidence) -> int:
    """Groups of held-out pictures that would narrow the interval of the recent progress to the tolerance."""
    change = evidence.change("val", evidence.last, evidence.recent)
    half_width = (change.high - change.low) / 2
    ratio = half_width / evidence.tolerance
    return max(SMALLEST_JUDGED, int(np.ceil(change.groups * ratio**2)))


def sentence(
    evidence: Evidence, steps: Sequence[int], kept: int, vetoes: Sequence[str] = ()
) -> str:
    """The verdict in words with its numbers.

    Args:
        evidence: that it follows from.
        steps: [K+1] optimizer steps, 0 for the base.
        kept: row of the checkpoint to keep.
        vetoes: why it is not the one that the losses alone would have kept, in sentences.
    """
    word, last = judge(evidence), evidence.last
    if too_few(evidence):
        val, train = evidence.val.shape[1], evidence.train_probe.shape[1]
        return (
            f"Only {val} groups of held-out and {train} of training pictures to compare; a verdict needs at "
            f"least {SMALLEST_JUDGED} of each."
        )
    total = percent(evidence.change("val", last, evidence.first))
    if not np.isfinite(evidence.val[last]).all():
        found = f"The loss at step {steps[last]:,} is not a number."
    elif word is Word.DIVERGED:
        val, train = (percent(evidence.change(on, last, 0)) for on in ("val", "train_probe"))
        found = f"Worse than the base on held-out ({val}) and on training pictures ({train})."
    elif word in (Word.OVERFITTING, Word.REGRESSING):
        found = _lost(evidence, steps, word)
    elif word is Word.NO_EFFECT:
        found = f"Held-out loss changed by {total}, within ±{NEGLIGIBLE:.1%}."
    else:
        found = _recent(evidence, steps)
    return " ".join([*_started(evidence), found, *vetoes, _keep(evidence, steps, kept)])


def _started(evidence: Evidence) -> list[str]:
    """Where training started, if that was not the base."""
    if evidence.first == 0:
        return []
    change = percent(evidence.change("val", START, 0))
    return [f"Training started with an export, whose held-out loss is {change} against the base."]


def _since(steps: Sequence[int], row: Row) -> str:
    return "that" if row == START else f"step {steps[row]:,}"


def _recent(evidence: Evidence, steps: Sequence[int]) -> str:
    since, last = evidence.recent, evidence.last
    progress = percent(evidence.change("val", last, since), "points")
    found = f"Since {_since(steps, since)} held-out loss changed by {progress}."
    if rules.is_worse(evidence, last):
        peak = evidence.peak
        lost = percent(evidence.change("val", last, peak), "points")
        best = "where it started" if peak == START else f"step {steps[peak]:,}"
        found += (
            f" At the last step it is worse than at its best, {best}, by {lost}; a "
            f"verdict takes {rules.LOOKS} such evaluations in a row."
        )
    return found


def _lost(evidence: Evidence, steps: Sequence[int], word: Word) -> str:
    last, best = evidence.last, evidence.peak
    since = steps[turned_worse(evidence)]
    named = (
        "the base" if best == 0 else "where it started" if best == START else _since(steps, best)
    )
    lost = percent(evidence.change("val", last, best), "points")
    training = "kept improving" if word is Word.OVERFITTING else "did not clearly fall either"
    return (
        f"Since step {since:,} held-out loss is worse than at its best ({named}): by {lost} at step "
        f"{steps[last]:,}, while the loss on training pictures {training}."
    )


def _keep(evidence: Evidence, steps: Sequence[int], row: int) -> str:
    if row == 0 and rules.kept(evidence):
        return "Keep the base model."
    if row == 0:
        return "Keep the base model: no checkpoint is better on held-out pictures."
    change = percent(evidence.change("val", row, 0))
    return f"Keep step {steps[row]:,}: held-out loss {change} against the base."


def percent(estimate: Estimate, unit: str = "%") -> str:
    """An estimate of a fraction as percent with its interval.

    >>> percent(Estimate(-0.0612, -0.074, -0.049, 128, 96))
    '-6.1 % [-7.4, -4.9]'
    """
    value, low, high = changes(estimate.value, estimate.low, estimate.high)
    return f"{value} {unit} [{low}, {high}]"
