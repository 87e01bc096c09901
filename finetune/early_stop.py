"""Early stopping: whether the last held-out evaluations show a symptom (``finetune.overfitting``)."""

from __future__ import annotations

from finetune.curve import HeldoutCurve
from finetune.overfitting import symptom


def reason_to_stop(curve: HeldoutCurve, patience: int | None) -> str | None:
    """The symptom that each of the last ``patience`` evaluations shows, or None.

    One evaluation in twenty shows it by chance, and a run is evaluated often; hence more than one.
    """
    if patience is None or len(curve.steps) <= patience:
        return None
    count = len(curve.steps)
    symptoms = {symptom(curve.evidence(at)) for at in range(count - patience, count)}
    return symptoms.pop() if len(symptoms) == 1 else None
