"""How well a row names a picture, and which of several rows names it best.

A row names its picture exactly by a path under which there is a file, by its own identity where that was
noted when the picture was fetched for it, or by an address that was noted when the picture was downloaded.
A row of which it is noted that its picture could not be fetched has none, whatever else it names.
Everything else is a guess, and there are four ways to guess, the better one first:

1. PATH: one of the two paths ends with the other, by whole parts: ``/mnt/old/cats/1.jpg`` and ``cats/1.jpg``;
   the more parts agree, the better;
2. KEY: the row's key is the key of a downloaded picture;
3. ID: an identifier of the row is the file's name, or the name without its suffix;
4. ADDRESS: the last part of an address is the file's name.

Names may differ in Unicode's normalisation and in letter case; the more alike, the better. A picture
that notes another address or hash than the row, or that has the row's file name in another folder,
contradicts the row, which then does not name it in any way.

A guess counts only if it is unique over the whole set: the row names no second picture equally well, and
no other row names that picture equally well or better. Rows that say the same, as those with several
captions of one picture do, count as one. A row with an exact name makes no guesses.
Nothing here depends on the order of rows or pictures.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from pathlib import PureWindowsPath
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from curate.readers.files import IMAGE_SUFFIXES
from curate.readers.names import folded, normalised

MAX_PARTS = 8  # of a path; further folders are not compared
_MAX_NAME_BYTES = 255  # of a file, on common file systems

EXACT = 0
"""The rank of an exact name; every guess has a larger one."""

_WORST = 2**15 - 1


class Way(IntEnum):
    """The ways to guess, the better one first."""

    PATH = 1
    KEY = 2
    ID = 3
    ADDRESS = 4


_LABELS = {
    Way.PATH: "the end of their path",
    Way.KEY: "their key",
    Way.ID: "an identifier as file name",
    Way.ADDRESS: "the last part of their address",
}

WHOLE, END, STEM, KEY = "whole", "end", "stem", "key"
Name = tuple[str, str]
"""A kind of name and the name. By WHOLE, END, STEM and KEY, which are folded, guesses find their pictures."""


@dataclass(frozen=True)
class Row:
    """What a row says of its picture.

    Attributes:
        paths: names of its file, relative to the folder of the pictures or of another machine.
        addresses: from which it was, or may be, downloaded.
        captions: as in the candidate.
        key: as img2dataset numbers pictures.
        ids: identifiers that may be the name of its file.
        sha256: of the picture's bytes.
        table: the file of the row, within which its identifiers are unique and its relative paths mean
            one folder.
        is_beside: the row only keeps its pictures from others; it is not one of the data set.
        identity: as noted of the picture that was fetched for this very row, see ``tables.row_identity``.
    """

    paths: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()
    captions: tuple[str, ...] = ()
    key: str = ""
    ids: tuple[str, ...] = ()
    sha256: str = ""
    table: str = ""
    is_beside: bool = False
    identity: str = ""

    @cached_property
    def claimant(self) -> int:
        """Equal for rows that say the same of their picture, as those with its several captions do.

        In another table only an address or an absolute path means the same; ``1.jpg`` may be one in the train
        and another in the val split.
        """
        said = (*self.paths, "", *self.addresses)
        if self.addresses or any(PureWindowsPath(path).anchor for path in self.paths):
            return mark("\0".join(said))
        return mark("\0".join((self.table, *(said if self.paths else (self.key, *self.ids)))))

    @cached_property
    def endings(self) -> tuple[str, ...]:
        """The last part of each address, as it is and decoded."""
        ends = [end for address in self.addresses for end in _ends_of(address)]
        return tuple(dict.fromkeys(filter(_may_be_name, ends)))


class Picture(NamedTuple):
    """A picture, and what was noted when it was downloaded.

    Attributes:
        location: its path below the folder of the pictures; in a tar ``PATH.tar:OFFSET:SIZE``.
        member: its name in a tar, "" for a file.
        address, uid, sha256: `mark` of what was noted, 0 for nothing.
    """

    location: str
    member: str = ""
    address: int = 0
    uid: int = 0
    sha256: int = 0

    @property
    def paths(self) -> tuple[str, ...]:
        """Its path, from which folders may be missing; in a tar with and without the tar's own."""
        if not self.member:
            return (self.location,)
        tar = self.location.rsplit(":", 2)[0].removesuffix(".tar")
        return f"{tar}/{self.member}", self.member

    @property
    def name(self) -> str:
        """The last part of its path."""
        return (self.member or self.location).rpartition("/")[2]


def mark(text: str) -> int:
    """A hash of 64 bits, signed; 0 only for ""."""
    if not text:
        return 0
    data = text.encode("utf-8", "surrogateescape")
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "big", signed=True) or 1


def names_of(picture: Picture, uid: str) -> Iterator[Name]:
    """The names by which guesses may find a picture; ``uid`` is the one noted."""
    paths = [_parts(folded(path)) for path in picture.paths]
    whole = {"/".join(parts) for parts in paths}
    ends = {"/".join(parts[-n:]) for parts in paths for n in range(1, len(parts))}
    yield from ((WHOLE, name) for name in sorted(whole))
    yield from ((END, name) for name in sorted(ends - whole))
    yield KEY if picture.address else STEM, _stem(folded(picture.name))
    if uid:
        yield STEM, folded(uid)


def names_asked(row: Row) -> set[Name]:
    """The names under which the pictures that a row may guess are found."""
    asked: set[Name] = set()
    for path in row.paths:
        parts = _parts(folded(path))
        if parts and _may_be_name(parts[-1]):
            asked.update((WHOLE, "/".join(parts[-n:])) for n in range(1, len(parts) + 1))
            asked.add((END, "/".join(parts)))
    if row.key:
        asked.add((KEY, folded(row.key)))
    for name in filter(_may_be_name, row.ids):
        asked.add((STEM, folded(name)))
        if name.lower().endswith(IMAGE_SUFFIXES):
            asked.update(((WHOLE, folded(name)), (END, folded(name))))
    for end in row.endings:
        asked.update(((WHOLE, folded(end)), (END, folded(end))))
    return asked


def rank(row: Row, picture: Picture) -> int | None:
    """How well a row without an exact name names a picture: smaller is better, None is not at all."""
    name = picture.name
    agreements = [_agreement(path, other) for path in row.paths for other in picture.paths]
    ranks = [found for found in agreements if found is not None]
    if _is_contradicted(row, picture, agrees=bool(ranks)):
        return None
    if not ranks and picture.address and row.key:
        ranks = _ranks(Way.KEY, [row.key], [_stem(name)])
    if not ranks and row.ids:
        if picture.uid and picture.uid in map(mark, row.ids):
            ranks = [100 * Way.ID]
        elif not picture.address:  # img2dataset's numbers are no identifiers of rows
            ranks = _ranks(Way.ID, row.ids, [name, _stem(name)])
    return min(ranks or _ranks(Way.ADDRESS, row.endings, [name]), default=None)


def is_one_of_many(rank: int, picture: Picture, left_out: Collection[Name]) -> bool:
    """Whether pictures that were not looked at may be named as well as this one, which has the ``rank``.

    Paths of one rank are found by one name, so that none of them is looked at without the others.

    Args:
        rank: see `rank`.
        picture: one that was looked at.
        left_out: the names whose pictures were not, as too many share them.
    """
    if not left_out or rank < 100 * Way.KEY:
        return False
    return not {*names_of(picture, "")}.isdisjoint(left_out)


def label(rank: int) -> str:
    """How the pictures of a rank were found, for a note."""
    is_otherwise = " in another spelling" if rank % 10 else ""
    return f"{_LABELS[Way(rank // 100)]}{is_otherwise}"


def _is_contradicted(row: Row, picture: Picture, *, agrees: bool) -> bool:
    if picture.address and row.addresses and picture.address not in map(mark, row.addresses):
        return True
    if picture.sha256 and row.sha256 and picture.sha256 != mark(row.sha256.lower()):
        return True
    name = [folded(picture.name)]
    return not agrees and any(_parts(folded(path))[-1:] == name for path in row.paths)


def _agreement(path: str, other: str) -> int | None:
    """The rank of two paths of which one ends with the other; None if neither does."""
    a, b = _parts(path), _parts(other)
    count = min(len(a), len(b))
    if not count:
        return None
    difference = _difference("/".join(a[-count:]), "/".join(b[-count:]))
    if difference is None:
        return None
    agreeing = MAX_PARTS + 1 if len(a) == len(b) else min(count, MAX_PARTS)
    return 100 * Way.PATH + 10 * (MAX_PARTS + 1 - agreeing) + difference


def _ranks(way: Way, wanted: Iterable[str], present: list[str]) -> list[int]:
    found = [_difference(a, b) for a in wanted for b in present]
    return [100 * way + difference for difference in found if difference is not None]


def _difference(a: str, b: str) -> int | None:
    """0 for equal names, 1 if the normalisation differs, 2 if the letter case does; else None."""
    if a == b:
        return 0
    if normalised(a) == normalised(b):
        return 1
    return 2 if folded(a) == folded(b) else None


def _parts(path: str) -> list[str]:
    """The last parts of a path, without those that lead out of the folder."""
    parts = [part for part in path.replace("\\", "/").split("/") if part not in ("", ".")]
    while ".." in parts:
        parts = parts[parts.index("..") + 1 :]
    return parts[-MAX_PARTS:]


def _stem(name: str) -> str:
    """A file name without its suffix: ``12.5`` of ``12.5.jpg``."""
    return name.rpartition(".")[0] or name


def _ends_of(address: str) -> tuple[str, ...]:
    try:
        end = urlsplit(address).path.rpartition("/")[2]
    except ValueError:  # not an address
        return ()
    return end, unquote(end)


def _may_be_name(text: str) -> bool:
    return 0 < len(text) <= _MAX_NAME_BYTES and "/" not in text


class Claims:
    """The best guess on each picture, in 12 bytes each; rows are added in any order, those beside last."""

    def __init__(self, pictures: int) -> None:
        self._ranks = array("h", [_WORST]) * pictures
        self._claimants = array("q", [0]) * pictures
        self._shared = bytearray(pictures)
        self._beside = bytearray(pictures)

    def add(self, picture: int, rank: int, row: Row) -> None:
        """Note that ``row`` guesses picture number ``picture`` with ``rank``."""
        before, claimant = self._ranks[picture], row.claimant
        if rank > before or (rank == before and claimant == self._claimants[picture]):
            return
        was_shared = rank == before and self._shared[picture]
        self._ranks[picture], self._claimants[picture] = rank, claimant
        self._shared[picture] = rank == before
        self._beside[picture] = row.is_beside and not was_shared

    def take(self, picture: int, *, is_beside: bool) -> None:
        """Note that a row names the picture exactly."""
        if not is_beside or self._ranks[picture] != EXACT:
            self._ranks[picture], self._beside[picture] = EXACT, is_beside

    def __iter__(self) -> Iterator[int]:
        """The pictures that rows guess and none is known to name exactly."""
        return (number for number, rank in enumerate(self._ranks) if rank not in (EXACT, _WORST))

    def admits(self, picture: int, rank: int, claimant: int) -> bool:
        """Whether no other row names the picture as well as the one that guesses it with ``rank``."""
        is_best = self._ranks[picture] == rank and self._claimants[picture] == claimant
        return is_best and not self._shared[picture]

    def is_beside(self, picture: int) -> bool:
        """Whether only rows beside the data set stand against the guess of its own."""
        return bool(self._beside[picture])
