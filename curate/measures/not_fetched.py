"""Why a picture was not fetched: the states in which a request can end, and what a report says of each."""

from __future__ import annotations

from curate.measures.unreadable import MISSING_FILE

STORED = "stored"

TRANSIENT = {
    "dns_failed": "the name server did not answer",
    "cannot_connect": "no connection to the host",
    "timeout": "no whole answer in time",
    "cut_short": "the connection ended within the answer",
    "rate_limited": "the host asks for fewer requests (429)",
    "asks_to_wait": "the host asks to be left alone for longer than fetch.max_wait_s",
    "server_error": "an error of the server (5xx)",
    "host_down": "the host failed several times in a row, so it was not asked again",
    "robots_unreachable": "robots.txt of the host cannot be read, so nothing else may be",
}
"""States that may be otherwise an hour later, each with what a report says of it: asked again."""

PERMANENT = {
    "bad_address": "no address of http or https",
    "opted_out": "in a list of those who opted out",
    "robots": "robots.txt forbids it",
    "reserved": "the host's headers forbid it (X-Robots-Tag, tdm-reservation)",
    "forbidden_network": "the host is in a private or reserved network",
    "unknown_host": "there is no host of this name",
    "bad_certificate": "TLS could not be verified",
    "redirects": "too many redirects, or one that leads nowhere",
    "not_found": "nothing is there (404, 410)",
    "refused": "the host refuses (401, 403, 451)",
    "bad_answer": "an answer that is not sound HTTP, or of another status",
    "too_large": "more bytes than fetch.max_mb",
    "too_many_pixels": "more pixels than fetch.max_pixels",
    "not_a_picture": "something else than a picture, such as a page of HTML",
    "damaged": "a picture that is cut short or cannot be read",
    "changed": "another picture than the data set's hash says",
}
"""States that stay: not asked again."""

STATES = {STORED: "stored", **TRANSIENT, **PERMANENT}
"""Every state, with what a report says of it. A request ends in exactly one."""

REASON = "not fetched"
"""Begins the error of a picture that could not be fetched, ahead of what a report says of its state."""

PLACE = "/not-fetched/"
"""Begins the location of a picture that was not fetched; those of files are relative."""


def location_of(state: str) -> str:
    """The location of a picture that could not be fetched, which says why: one for each state."""
    return f"{PLACE}{state}"


def state_at(location: str) -> str:
    """The state that a location says; "" for that of a file."""
    return location.removeprefix(PLACE) if location.startswith(PLACE) else ""


def error_of(state: str) -> str:
    """The error of a picture whose request ended in a state: the same for all of them.

    >>> error_of("rate_limited")
    'not fetched: the host asks for fewer requests (429)'
    """
    return f"{REASON}: {STATES.get(state, state)}"


def is_absent(error: str) -> bool:
    """Whether there is no file at all, so that no decoder was asked."""
    return error == MISSING_FILE or error.startswith(f"{REASON}: ")
