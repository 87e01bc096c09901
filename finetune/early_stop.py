"""Early stopping: whether the last held-out evaluations show a symptom (``finetune.rules``)."""

from __future__ import annotations

from finetune.curve import HeldoutCurve
from finetune.rules import is_finite, symptom


def reason_to_stop(curve: HeldoutCurve, patience: int | None) -> str | None:
    """The symptom that the last ``patience`` evaluations show, or None; of what is not a number, the last one."""
    if patience is None or len(curve.steps) < 2:
        return None
    evidence = curve.evidence(len(curve.steps) - 1)
    if not is_finite(evidence):
        return "diverged"
    return symptom(evidence, looks=patience) if len(curve.steps) > patience else None
