"""The settings of a fetch that its answers depend on, and which answers stand under others.

``fetch.json`` has all that were used in a folder, and each answer notes by its number under which it was given.
So a picture that was too large is asked for again once ``fetch.max_mb`` is raised, and one whose owner opted out
later does not stay, although both had their answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from curate.fetch import hashes
from curate.fetch.answer import STORED, Answer, Request
from curate.fetch.config import FetchConfig
from curate.fetch.opt_out import OptOut
from curate.fetch.targets import BadAddress, parse
from curate.run.files import sha256_of

SETTINGS = "settings"
"""Of an answer: the number of the settings under which it was given."""

LISTED = "the picture's hash is listed"
"""The error of what is opted out by a hash."""

_VALUES = ("max_mb", "max_pixels", "max_redirects", "robots", "verify")
_EXCEPTIONS = ("allow_hosts", "allow_networks")
_LISTS = ("opt_out_hosts", "opt_out_urls", "opt_out_hashes")
_LIMITS = {"max_mb": "too_large", "max_pixels": "too_many_pixels", "max_redirects": "redirects"}

ASK = Answer("")
"""What `Review.of` gives for a row that is to be asked for again."""


def settings_of(fetch: FetchConfig) -> dict[str, Any]:
    """The settings for ``fetch.json``; of a file a hash of its content, "" for none."""
    files = {name: getattr(fetch, name) for name in (*_LISTS, "hashes")}
    return (
        {name: getattr(fetch, name) for name in _VALUES}
        | {name: sorted(getattr(fetch, name)) for name in _EXCEPTIONS}
        | {name: sha256_of(Path(path).expanduser()) if path else "" for name, path in files.items()}
    )


def asked_again(before: Mapping[str, Any], now: Mapping[str, Any]) -> set[str]:
    """The states that may be otherwise now, since what decides them is less strict than before.

    >>> known = {"max_mb": 1.0, "max_pixels": 9, "max_redirects": 5, "robots": True, "verify": True}
    >>> known |= {name: [] for name in _EXCEPTIONS} | {name: "" for name in (*_LISTS, "hashes")}
    >>> sorted(asked_again(known, known | {"max_mb": 2.0, "max_pixels": 8, "robots": False}))
    ['robots', 'robots_unreachable', 'too_large']
    """
    found = {state for name, state in _LIMITS.items() if now[name] > before[name]}
    if before["robots"] and not now["robots"]:
        found |= {"robots", "robots_unreachable"}
    if any(set(now[name]) - set(before[name]) for name in _EXCEPTIONS):
        found.add("forbidden_network")
    if before["verify"] and (not now["verify"] or before["hashes"] != now["hashes"]):
        found.add("changed")
    if _lists_differ(before, now):
        found.add("opted_out")
    return found


def is_stricter(before: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Whether pictures that were stored may not be kept now."""
    return _lists_differ(before, now) or _is_compared_again(before, now)


def may_change(revisions: Sequence[Mapping[str, Any]], states: Mapping[str, int]) -> int:
    """How many answers of these states may be given under settings by which they do not stand, at most.

    Args:
        revisions: settings that were used, the present ones last.
        states: how many answers there are of each.
    """
    concerned: set[str] = set()
    for before in revisions[:-1]:
        concerned |= asked_again(before, revisions[-1])
        concerned |= {STORED} if is_stricter(before, revisions[-1]) else set()
    return sum(states.get(state, 0) for state in concerned)


class Review:
    """Looks at answers that were given under other settings.

    Attributes:
        number: of the present settings.
        loosened: states that are asked for again, unless a fetch under these settings was interrupted.
    """

    def __init__(
        self, revisions: Sequence[Mapping[str, Any]], opt_out: OptOut, used: int = 0
    ) -> None:
        """Take all settings, the present ones last, with the lists of these.

        Args:
            revisions: all settings.
            opt_out: the lists that the present ones name.
            used: how many of them there were before this fetch.
        """
        self.number = len(revisions) - 1
        self._opt_out = opt_out
        self._revisions = revisions
        now = revisions[-1]
        self._again = [asked_again(before, now) for before in revisions]
        is_new = 0 < used < len(revisions)
        self.loosened = self._again[-2] - {"opted_out"} if is_new else set[str]()
        self._is_stricter = [is_stricter(before, now) for before in revisions]

    def concerns(self, known: Mapping[str, Any]) -> bool:
        """Whether `of` may say anything of an answer, by what is noted of it."""
        number = known.get(SETTINGS) or 0
        if number >= self.number:
            return False
        if known["state"] == STORED:
            return self._is_stricter[number]
        return known["state"] in self._again[number]

    def is_needed(self) -> bool:
        """Whether any answer may not stand."""
        return any(self._again[:-1]) or any(self._is_stricter[:-1])

    def of(self, known: Mapping[str, Any], request: Request) -> Answer | None:
        """What becomes of an answer: None if it stands, `ASK`, or another answer in its place.

        Args:
            known: what is noted of it, which `concerns` is true of: state, url, sha256, md5, error, settings.
            request: of its row.
        """
        before, now = self._revisions[known.get(SETTINGS) or 0], self._revisions[-1]
        state = known["state"]
        if state == "opted_out":
            if known["error"] == LISTED:  # to look again it would have to be fetched
                return None if now["opt_out_hashes"] else ASK
            return None if self._has_opted_out(request.url) else ASK
        if state != STORED:
            return ASK
        if _lists_differ(before, now):
            if self._has_opted_out(request.url):
                return Answer("opted_out")
            digests = (known["sha256"], known["md5"])
            if any(digest and self._opt_out.has_picture(digest) for digest in digests):
                return Answer("opted_out", LISTED)
        if _is_compared_again(before, now):
            name = "sha256" if request.sha256 else "md5"
            expected = getattr(request, name)
            if expected and expected.lower() != known[name]:
                return Answer("changed")
        return None

    def _has_opted_out(self, url: str) -> bool:
        if self._opt_out.has_address(url):
            return True
        try:
            return self._opt_out.has_host(parse(url).host)
        except BadAddress:
            return False


def _lists_differ(before: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    return any(before[name] != now[name] for name in _LISTS)


def _is_compared_again(before: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    return now["verify"] and (not before["verify"] or before["hashes"] != now["hashes"])


def check_files(fetch: FetchConfig) -> OptOut:
    """Read the files that ``fetch.*`` names, before anything is written.

    Raises:
        UserError: one cannot be read, or has lines that are no entries of its kind.
        FileNotFoundError: ``fetch.hashes`` is missing.
    """
    if fetch.hashes:
        hashes.check(Path(fetch.hashes))
    return OptOut(fetch)
