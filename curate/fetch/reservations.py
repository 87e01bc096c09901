"""What the headers of an answer forbid: X-Robots-Tag and the reservation of text and data mining."""

from __future__ import annotations

from aiohttp import ClientResponse

AGENT = "darkroom"
"""Our name in robots.txt and X-Robots-Tag."""

_FORBIDDING = {"noai", "noimageai", "noindex", "noimageindex", "none"}
"""``none`` is ``noindex, nofollow``; ``noai`` and ``noimageai`` are DeviantArt's, which others took up."""
_WITH_VALUE = {"unavailable_after", "max-snippet", "max-image-preview", "max-video-preview"}
"""Rules with a colon of their own, which names no robot."""


def reserved(response: ClientResponse) -> str:
    """The header by which this answer may not be used for training, "" if there is none.

    ``X-Robots-Tag`` counts where it is addressed to all or to ``darkroom`` and has ``noai``, ``noimageai``,
    ``noindex``, ``noimageindex`` or ``none``; ``tdm-reservation`` where it is 1 (TDM Reservation Protocol,
    W3C community group report, 2024).
    """
    headers = response.headers
    if "X-Robots-Tag" in headers:
        for value in headers.getall("X-Robots-Tag"):
            if rule := forbidding_rule(value):
                return f"X-Robots-Tag: {rule}"
    if "tdm-reservation" in headers and "1" in map(str.strip, headers.getall("tdm-reservation")):
        return "tdm-reservation: 1"
    return ""


def forbidding_rule(value: str) -> str:
    """The first rule of one X-Robots-Tag that forbids us, "" if there is none.

    A robot's name before a colon holds until the next one.

    >>> forbidding_rule("noarchive, NoAI"), forbidding_rule("otherbot: noindex, noai")
    ('noai', '')
    """
    concerns_us = True
    for part in value.lower().split(","):
        name, colon, rest = part.partition(":")
        if colon and name.strip() not in _WITH_VALUE:
            concerns_us = name.strip() in (AGENT, "*")
            part = rest
        if concerns_us and (rule := part.strip()) in _FORBIDDING:
            return rule
    return ""
