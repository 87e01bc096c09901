"""Of a series; replaced when its page is built."""

from __future__ import annotations

from workflows.retraining.series import Series


def write(series: Series) -> None:
    """Nothing yet."""
