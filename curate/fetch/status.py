"""What the status of an answer says, and how long a host asks to be left alone."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC
from email.utils import parsedate_to_datetime

REDIRECTS = {301, 302, 303, 307, 308}

_STATES = {
    **dict.fromkeys((404, 410), "not_found"),
    **dict.fromkeys((401, 403, 451), "refused"),
    408: "timeout",
    429: "rate_limited",
}
_LONGEST_S = 1e9  # a finite number for what is never


def state_of(status: int) -> str:
    """The state in which an answer other than 200 and a redirect ends."""
    if 500 <= status < 600:
        return "server_error"
    return _STATES.get(status, "bad_answer")


def retry_after_s(text: str | None, now: Callable[[], float] = time.time) -> float | None:
    """Seconds of a ``Retry-After``, a count or a date (RFC 9110, 10.2.3); None if it says nothing.

    >>> retry_after_s("120"), retry_after_s("soon")
    (120.0, None)
    """
    if not text:
        return None
    text = text.strip()
    if text.isascii() and text.isdigit():
        return min(float(text), _LONGEST_S)
    try:
        date = parsedate_to_datetime(text)
    except ValueError:
        return None
    if date.tzinfo is None:  # written as -0000: in UTC, of no known place
        date = date.replace(tzinfo=UTC)
    return min(max(0.0, date.timestamp() - now()), _LONGEST_S)
