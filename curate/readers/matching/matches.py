"""The picture of each row: by its exact name, else by the best guess that is unique over the whole set."""

from __future__ import annotations

import sqlite3
from array import array
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from curate.readers.files import images_below
from curate.readers.matching.claims import (
    EXACT,
    Claims,
    Picture,
    Row,
    is_one_of_many,
    label,
    mark,
    names_asked,
    rank,
)
from curate.readers.matching.index import Noted, PictureIndex
from curate.readers.matching.paths import named_file

_SEVERAL, _SHARED, _BESIDE = -1, -2, -3
_REASONS = {
    _SEVERAL: "rows left without a picture, since several files have their name",
    _SHARED: "rows left without a picture, since another row names the same file as well or better",
    _BESIDE: "rows left without a picture, since a table beside dataset.path names the same file (if "
    "both mean the same pictures, move that table elsewhere)",
}
# Pictures and guesses are left behind; only the matches are read later.
_TABLES = """
CREATE TABLE guesses (
    line INTEGER, rank INTEGER, picture INTEGER, claimant INTEGER, PRIMARY KEY (line, rank, picture)
) WITHOUT ROWID;
CREATE TABLE matches (line INTEGER PRIMARY KEY, location TEXT, how INTEGER);
"""
_GUESSES = """
SELECT line, rank, picture, claimant, location FROM guesses JOIN pictures ON id = picture
ORDER BY line, rank
"""


class Match(NamedTuple):
    """The location of a row's picture, "" for none, and what to note of it, "" for nothing."""

    location: str
    note: str = ""


NO_MATCH = Match("")


def fill(
    connection: sqlite3.Connection,
    root: Path,
    pictures: Iterable[Noted],
    rows: Callable[[bool], Iterable[Row]],
    beside: Callable[[], Iterable[Row]] = tuple,
    first: int | None = None,
) -> None:
    """Match the pictures below ``root`` with the rows of a data set, for `stored` to read.

    Args:
        connection: to an empty database.
        root: the folder of the pictures.
        pictures: each with what was noted of it.
        rows: gives all rows of the data set; their captions only if asked for.
        beside: gives rows of other data sets, which may name the same pictures.
        first: only so many rows at the start are asked about later. The others are then read only where a guess
            might depend on them.
    """
    connection.executescript(_TABLES)
    index = PictureIndex(connection, pictures)
    matching = _Matching(connection, root, index)
    for number, row in enumerate(rows(index.any_is_noted)):
        if (
            first is not None
            and number >= first
            and not matching.has_guesses
            and index.all_are_noted
        ):
            return  # pictures of noted addresses are not guessed by rows that have one
        matching.add(number, row)
    if matching.has_guesses:
        for row in beside():
            matching.add(-1, row)
        matching.decide()


def stored(
    connection: sqlite3.Connection, first: int = 0, count: int = 2**62
) -> Iterator[tuple[int, str, str]]:
    """Number, location and note, see `Match`, of each of these rows that `fill` found something about, in order."""
    found = connection.execute(
        "SELECT * FROM matches WHERE line BETWEEN ? AND ? ORDER BY line", (first, first + count - 1)
    )
    for line, location, how in found.fetchall():
        yield line, location, _note(how) if how != EXACT else ""


def match(root: Path, rows: list[Row]) -> list[Match]:
    """The pictures of rows that fit into memory, among the image files below ``root``."""
    exact = [Match(named_file(root, row.paths)) for row in rows]
    if not root.is_dir() or all(found.location for found in exact):
        return exact
    pictures = ((Picture(location), {}) for location in sorted(images_below(root)))
    with closing(sqlite3.connect(":memory:")) as connection:
        fill(connection, root, pictures, lambda _: rows)
        matches = {line: Match(*found) for line, *found in stored(connection)}
    return [matches.get(number, NO_MATCH) for number in range(len(rows))]


class _Matching:
    """Collects what all rows say of the pictures, and then decides.

    Attributes:
        has_guesses: whether there is anything to decide.
    """

    def __init__(self, connection: sqlite3.Connection, root: Path, index: PictureIndex) -> None:
        self._connection = connection
        self._root = root
        self._index = index
        self._claims = Claims(index.count)
        self._named = array("q")  # marks of the paths of files that rows name exactly
        self._named_beside = array("q")
        self.has_guesses = False

    def add(self, line: int, row: Row) -> None:
        """Note what row number ``line`` says; a row beside has none."""
        if location := named_file(self._root, row.paths):
            (self._named_beside if row.is_beside else self._named).append(mark(location))
            self._put(line, location, EXACT)
        elif noted := self._index.noted(row):
            self._claims.take(noted[0], is_beside=row.is_beside)
            self._put(line, noted[1], EXACT)
        elif not (row.addresses and self._index.all_are_noted):  # they note other addresses
            self._guess(line, row)

    def _guess(self, line: int, row: Row) -> None:
        asked = names_asked(row)
        if not asked:
            return
        hits, left_out = self._index.hits(asked)
        for number, picture in hits.items():
            found = rank(row, picture)
            if found is not None:
                self._claims.add(number, found, row)
                if not (row.is_beside or is_one_of_many(found, picture, left_out)):
                    self.has_guesses = True
                    guess = (line, found, number, row.claimant)
                    self._connection.execute("INSERT INTO guesses VALUES (?, ?, ?, ?)", guess)
        if left_out:
            self._put(line, "", _SEVERAL)

    def _put(self, line: int, location: str, how: int) -> None:
        if line >= 0:
            values = (line, location, how)
            self._connection.execute("INSERT OR REPLACE INTO matches VALUES (?, ?, ?)", values)

    def decide(self) -> None:
        """Give each row without an exact name the picture that it guesses best, if nobody else may."""
        self._take_named()
        found = self._connection.execute(_GUESSES)
        for line, guesses in groupby(found, key=lambda guess: guess[0]):
            how = 0
            for rank_, equal in groupby(guesses, key=lambda guess: guess[1]):
                (_, _, picture, claimant, location), *others = equal
                if not others and self._claims.admits(picture, rank_, claimant):
                    self._put(line, location, rank_)
                    break
                reason = _BESIDE if self._claims.is_beside(picture) else _SHARED
                how = how or (_SEVERAL if others else reason)
            else:
                self._put(line, "", how)

    def _take_named(self) -> None:
        """Take the pictures that rows name exactly, as far as others guess them."""
        if not self._named and not self._named_beside:
            return
        guessed = self._index.pictures(self._claims)
        numbers = {mark(location): number for number, location in guessed}
        for paths, is_beside in ((self._named, False), (self._named_beside, True)):
            for path in paths:
                if path in numbers:
                    self._claims.take(numbers[path], is_beside=is_beside)


def _note(how: int) -> str:
    if how == EXACT:
        return ""
    return _REASONS[how] if how < 0 else f"pictures matched by {label(how)}"
