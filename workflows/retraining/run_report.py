"""Of one retraining; replaced when its page is built."""

from __future__ import annotations

from workflows.retraining.record import Record
from workflows.retraining.series import Series


def write(series: Series, record: Record) -> None:
    """Nothing yet."""
