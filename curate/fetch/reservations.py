"""What the headers of an answer forbid: X-Robots-Tag and the reservation of text and data mining."""

from __future__ import annotations

import re

from aiohttp import ClientResponse

AGENT = "darkroom"
"""Our name in robots.txt and X-Robots-Tag."""

_FORBIDDING = {"noai", "noimageai", "noindex", "noimageindex", "none"}
"""``none`` is ``noindex, nofollow``; ``noai`` and ``noimageai`` are DeviantArt's, which others took up."""
_RULES = _FORBIDDING | {
    *(
        "all",
        "index",
        "follow",
        "nofollow",
        "noarchive",
        "nocache",
        "nosnippet",
        "notranslate",
        "noodp",
    ),
    *("noydir", "indexifembedded", "unavailable_after", "max-snippet", "max-image-preview"),
    "max-video-preview",
}
"""Rules by name. A name before a colon is a robot's if one of them follows, else that of a rule with a value."""

_AROUND_COLON = re.compile(r"\s*:\s*")
_BETWEEN = re.compile(r"[,;\s]+")
_QUOTES = "\"'[]()"


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
    if "tdm-reservation" in headers:
        for value in headers.getall("tdm-reservation"):
            if "1" in _words(value):
                return "tdm-reservation: 1"
    return ""


def forbidding_rule(value: str) -> str:
    """The first rule of one X-Robots-Tag that forbids us, "" if there is none.

    A robot's name before a colon holds until the next one. Rules are found between commas, semicolons and
    spaces, with a value behind them or without: what is not written as it should be is obeyed.

    >>> forbidding_rule("noarchive, NoAI"), forbidding_rule("otherbot: noindex, noai")
    ('noai', '')
    >>> forbidding_rule("max-depth: 3; noimageai=1")
    'noimageai'
    """
    concerns_us = True
    for word in _words(_AROUND_COLON.sub(":", value.lower())):
        name, _, rest = word.partition(":")
        rule = _name(rest)
        if name in (AGENT, "*"):
            concerns_us = True
        elif name not in _RULES and rule in _RULES:
            concerns_us = False
        else:
            rule = _name(name)
        if concerns_us and rule in _FORBIDDING:
            return rule
    return ""


def _words(value: str) -> list[str]:
    return [word.strip(_QUOTES) for word in _BETWEEN.split(value)]


def _name(word: str) -> str:
    """Of a rule, without its value."""
    return word.partition(":")[0].partition("=")[0].strip(_QUOTES)
