"""Find or remove URLs, e-mail addresses and telephone numbers in captions."""

# pyright: reportAttributeAccessIssue=false
from __future__ import annotations

import re

import pyarrow as pa
import pyarrow.compute as pc  # generates its functions on import

# ASCII classes mean the same to Arrow's RE2 and to Python's re; neither needs more to find a contact.
_LOCAL = r"[\w.%+-]"  # of an e-mail address, before the @
_LABEL = r"[\w-]"  # of a domain, between two dots
_AT_DOMAIN = rf"@{_LABEL}+(?:\.{_LABEL}+)*\.[A-Za-z]{{2,}}"
_TOP = r"(?:com|net|org|info|biz|edu|gov)\b(?:/[^\s<>\"]*)?"
_LINK = r"\b(?:https?|ftp)://[^\s<>\"]+|\bwww\d?\.[^\s<>\"]+\.[^\s<>\"]+"
# International (E.164: up to 15 digits) or North American; other formats look like any number.
_PHONE = r"\+\d(?:[ ().-]{0,2}\d){7,14}\b|(?:\(\d{3}\) ?|\b(?:1[-. ])?\d{3}[-. ])\d{3}[-. ]\d{4}\b"

# With a scheme, with www, or a bare domain under one of the oldest top-level domains; under others,
# "house.de" may as well be the end of one sentence and the start of the next.
_ANY = rf"(?i:{_LOCAL}+{_AT_DOMAIN}|{_LINK}|\b(?:{_LABEL}+\.)+{_TOP}|{_PHONE})"


def _compiled(not_before_a_domain: str) -> re.Pattern[str]:
    """``_ANY`` in linear time, for re, which backtracks: it would read a run once for each of its places.

    An address or a bare domain begins only where its run of characters does, and a run is never given
    up a character at a time.
    """
    address = rf"(?<!{_LOCAL}){_LOCAL}++{_AT_DOMAIN}"
    domain = rf"(?<!{not_before_a_domain})(?<!{_LABEL}\.)(?:-++\.)*+-*+\b(?:{_LABEL}++\.)+{_TOP}"
    return re.compile(f"(?i:{address}|{_LINK}|{domain}|{_PHONE})", re.ASCII)


# Where a number ends inside a run, as in "(202) 555-0123.jo@x.org", the rest begins to be a run of its
# own when the number is gone. Until then x.org is no domain, or "jo@" would be left.
_PASSES = (_compiled(r"[\w@-]"), _compiled(_LABEL))
_MARK = re.compile(r"[@.+\d]|://")  # every contact has one of these; most captions have none


def has_contact(captions: pa.Array) -> pa.Array:
    """Which of N captions contain a URL, an e-mail address or a telephone number: mask (N,)."""
    return pc.match_substring_regex(captions, _ANY)


def scrub_contacts(text: str) -> str:
    """The caption on one line, without URLs, e-mail addresses and telephone numbers.

    Telephone numbers are a plus with 8 to 15 digits, or in North American format. The time grows with
    the length of the caption and no faster, whatever it holds.

    >>> scrub_contacts("Red bike, call +49 30 1234567 or see www.bikes.example/red today")
    'Red bike, call or see today'
    """
    if not _MARK.search(text):
        return text
    for pattern in _PASSES:
        text = pattern.sub(" ", text)
    return " ".join(text.split())
