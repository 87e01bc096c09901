"""Find or remove URLs, e-mail addresses and telephone numbers in captions."""

# pyright: reportAttributeAccessIssue=false
from __future__ import annotations

import re

import pyarrow as pa
import pyarrow.compute as pc  # generates its functions on import

# The patterns mean the same to Arrow's RE2 and Python's re: no look-around, ASCII classes.
_EMAIL = r"[\w.%+-]+@[\w-]+(?:\.[\w-]+)*\.[A-Za-z]{2,}"
# With a scheme, with www, or a bare domain under one of the oldest top-level domains; under others,
# "house.de" may as well be the end of one sentence and the start of the next.
_URL = (
    r"\b(?:https?|ftp)://[^\s<>\"]+|\bwww\d?\.[^\s<>\"]+\.[^\s<>\"]+"
    r"|\b(?:[\w-]+\.)+(?:com|net|org|info|biz|edu|gov)\b(?:/[^\s<>\"]*)?"
)
# International (E.164: up to 15 digits) or North American; other formats look like any number.
_PHONE = r"\+\d(?:[ ().-]{0,2}\d){7,14}\b|(?:\(\d{3}\) ?|\b(?:1[-. ])?\d{3}[-. ])\d{3}[-. ]\d{4}\b"
_ANY = f"(?i:{_EMAIL}|{_URL}|{_PHONE})"
_ANY_PYTHON = re.compile(_ANY, re.ASCII)
_MARK = re.compile(r"[@.+\d]")  # every contact has one of these; most captions have none


def has_contact(captions: pa.Array) -> pa.Array:
    """Which of N captions contain a URL, an e-mail address or a telephone number: mask (N,)."""
    return pc.match_substring_regex(captions, _ANY)


def scrub_contacts(text: str) -> str:
    """The caption on one line, without URLs, e-mail addresses and telephone numbers.

    Telephone numbers are a plus with 8 to 15 digits, or in North American format.

    >>> scrub_contacts("Red bike, call +49 30 1234567 or see www.bikes.example/red today")
    'Red bike, call or see today'
    """
    if not _MARK.search(text):
        return text
    return " ".join(_ANY_PYTHON.sub(" ", text).split())
