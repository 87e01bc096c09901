"""Web addresses, e-mail addresses and telephone numbers in captions: found, or taken out."""

# pyright: reportAttributeAccessIssue=false
from __future__ import annotations

import re

import pyarrow as pa
import pyarrow.compute as pc  # makes its functions when it is imported

# Arrow's RE2 and Python's re read these alike: no look-around, ASCII classes.
_EMAIL = r"[\w.%+-]+@[\w-]+(?:\.[\w-]+)*\.[A-Za-z]{2,}"
# With a scheme, with www, or bare under one of the oldest top-level domains: "house.de" may be the
# end of one sentence and the start of the next.
_URL = (
    r"\b(?:https?|ftp)://[^\s<>\"]+|\bwww\d?\.[^\s<>\"]+\.[^\s<>\"]+"
    r"|\b(?:[\w-]+\.)+(?:com|net|org|info|biz|edu|gov)\b(?:/[^\s<>\"]*)?"
)
# International (E.164: up to 15 digits) or North American; others look like any other number.
_PHONE = r"\+\d(?:[ ().-]{0,2}\d){7,14}\b|(?:\(\d{3}\) ?|\b(?:1[-. ])?\d{3}[-. ])\d{3}[-. ]\d{4}\b"
_ANY = f"(?i:{_EMAIL}|{_URL}|{_PHONE})"
_ANY_PYTHON = re.compile(_ANY, re.ASCII)
_MARK = re.compile(r"[@.+\d]")  # without one of them nothing is found, and most captions have none


def has_contact(captions: pa.Array) -> pa.Array:
    """Which of N captions hold a URL, an e-mail address or a telephone number."""
    return pc.match_substring_regex(captions, _ANY)


def scrub_contacts(text: str) -> str:
    """The caption without its URLs, e-mail addresses and telephone numbers, on one line.

    Telephone numbers are those with a plus and 8 to 15 digits, and North American ones.

    >>> scrub_contacts("Red bike, call +49 30 1234567 or see www.bikes.example/red today")
    'Red bike, call or see today'
    """
    if not _MARK.search(text):
        return text
    return " ".join(_ANY_PYTHON.sub(" ", text).split())
