"""Find the picture of each row: by its exact name, else by the best guess that is unique over the whole set."""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from curate.readers.files import IMAGE_SUFFIXES, images_below, is_file, local_name
from curate.readers.matching.claims import EXACT, Claims, Picture, Row, label, names_asked, rank
from curate.readers.matching.index import Hit, Noted, PictureIndex, add_claims, add_pictures

_SEVERAL = "rows left without a picture, since several files have their name"
_SHARED = "rows left without a picture, since another row names the same file as well or better"
_BESIDE = (
    "rows left without a picture, since a table beside dataset.path names the same file (if both mean "
    "the same pictures, move that table elsewhere)"
)


class Match(NamedTuple):
    """The location of a row's picture, "" for none, and what to note of it, "" for nothing."""

    location: str
    note: str = ""


class Matcher:
    """Finds the pictures of rows below a folder.

    Without an index, only the files that rows name exactly are found.
    """

    def __init__(self, root: Path, index: PictureIndex | None) -> None:
        self._root = root
        self._index = index

    def find(self, row: Row) -> Match:
        """The picture of ``row``."""
        if location := named_file(self._root, row):
            return Match(location)
        if self._index is None:
            return Match("")
        if noted := self._index.noted(row):
            return Match(noted[1])
        return _best_guess(row, *self._guesses(row))

    def claims_of(self, row: Row) -> Iterator[tuple[int, int]]:
        """Number and rank of each picture that ``row`` names."""
        assert self._index is not None
        if location := named_file(self._root, row):
            if location.lower().endswith(IMAGE_SUFFIXES):
                hits, _ = self._index.hits(names_asked(Row(paths=(location,))))
                yield from ((hit.number, EXACT) for hit in hits if hit.picture.location == location)
        elif noted := self._index.noted(row):
            yield noted[0], EXACT
        else:
            by_rank, _ = self._guesses(row)
            for found, hits in by_rank.items():
                yield from ((hit.number, found) for hit in hits)

    def _guesses(self, row: Row) -> tuple[dict[int, list[Hit]], bool]:
        """The pictures that a row names, by rank, and whether too many have one of its names."""
        assert self._index is not None
        by_rank: dict[int, list[Hit]] = defaultdict(list)
        if row.addresses and self._index.all_are_noted:  # with other addresses
            return by_rank, False
        asked = names_asked(row)
        hits, too_many = self._index.hits(asked) if asked else ([], False)
        for hit in hits:
            found = rank(row, hit.picture)
            if found is not None:
                by_rank[found].append(hit)
        return by_rank, too_many


def _best_guess(row: Row, by_rank: dict[int, list[Hit]], too_many: bool) -> Match:
    reasons = [_SEVERAL] if too_many else []
    for found in sorted(by_rank):
        hit, *others = by_rank[found]
        if others:
            reasons.append(_SEVERAL)
        elif hit.claim.admits(row):
            return Match(hit.picture.location, f"pictures matched by {label(found)}")
        else:
            reasons.append(_BESIDE if hit.claim.is_beside else _SHARED)
    return Match("", reasons[0] if reasons else "")


def named_file(root: Path, row: Row) -> str:
    """The first of a row's paths under which there is a file below ``root``; "" for none."""
    return next((path for path in row.paths if is_inside(path) and is_file(root / path)), "")


def is_inside(name: str) -> bool:
    """Whether a path stays below the folder that it is relative to."""
    return "\0" not in name and not Path(name).is_absolute() and ".." not in Path(name).parts


def local_path(root: Path, name: str) -> str:
    """A row's path, relative to ``root`` if it is below; ``./a.png`` becomes ``a.png``."""
    name = local_name(root, name)
    if Path(name).is_relative_to(root.absolute()):
        name = Path(name).relative_to(root.absolute()).as_posix()
    return PurePosixPath(name).as_posix()


def build(
    connection: sqlite3.Connection,
    root: Path,
    pictures: Iterable[Noted],
    rows: Callable[[], Iterator[Row]],
    beside: Callable[[], Iterator[Row]] = lambda: iter(()),
) -> None:
    """Fill an index with the pictures below ``root`` and with the claims of all rows on them.

    Args:
        connection: to an empty database.
        root: the folder of the pictures.
        pictures: each with what was noted of it.
        rows: starts a pass over the rows.
        beside: starts a pass over rows of other data sets, which may name the same pictures.
    """
    claims = Claims(add_pictures(connection, pictures))
    index = PictureIndex(connection)
    if index.all_are_noted and all(row.addresses for row in rows()):
        return  # no row can guess
    matcher = Matcher(root, index)
    for row in chain(rows(), () if index.all_are_noted else beside()):
        for number, found in matcher.claims_of(row):
            claims.add(number, found, row)
    add_claims(connection, claims)


def match(root: Path, rows: list[Row]) -> list[Match]:
    """The pictures of rows that fit into memory, among the image files below ``root``."""
    exact = [Match(named_file(root, row)) for row in rows]
    if not root.is_dir() or all(found.location for found in exact):
        return exact
    connection = sqlite3.connect(":memory:")
    pictures = ((Picture(location), {}) for location in sorted(images_below(root)))
    build(connection, root, pictures, lambda: iter(rows))
    index = PictureIndex(connection)
    matcher = Matcher(root, index)
    found = [
        given if given.location else matcher.find(row)
        for given, row in zip(exact, rows, strict=True)
    ]
    index.close()
    return found
