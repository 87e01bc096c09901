"""Early stopping: whether the last held-out evaluations show a symptom (``finetune.rules``)."""

from __future__ import annotations

from finetune.curve import HeldoutCurve
from finetune.rules import symptom


def reason_to_stop(curve: HeldoutCurve, patience: int | None) -> str | None:
    """The symptom that the last ``patience`` evaluations show, or None."""
    if patience is None or len(curve.steps) <= patience:
        return None
    return symptom(curve.evidence(len(curve.steps) - 1), looks=patience)
