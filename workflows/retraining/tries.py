"""What may fail for a moment is tried again, with growing pauses."""

from __future__ import annotations

import time
from collections.abc import Callable

PAUSE_S = 2.0  # after the first try; doubled after each


def tried(attempts: int, once: Callable[[], str]) -> str:
    """Call ``once``, which returns what went wrong or "", until it works; returns what went wrong at last."""
    problem = ""
    for attempt in range(attempts):
        if attempt:
            time.sleep(PAUSE_S * 2 ** (attempt - 1))
        if not (problem := once()):
            break
    return problem
