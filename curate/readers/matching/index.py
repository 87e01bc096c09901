"""An index of pictures by the names under which rows look for them, in an SQLite database.

Names are kept as 64-bit hashes. A guess is checked against the picture's real names. An address is not:
with 10^7 pictures and as many rows, one wrong match is expected in about 10^4 data sets.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import cache
from typing import Any

from curate.measures.not_fetched import state_at
from curate.readers.matching.claims import Name, Picture, Row, mark, names_of

MAX_SHARING = 8  # pictures; a name that more of them share says nothing

Noted = tuple[Picture, Mapping[str, str]]
"""A picture, and the texts noted of it: url, caption, uid and row, as far as they are.

A picture that could not be fetched has a location that says so, and is found by its row alone.
"""

_TABLES = """
CREATE TABLE pictures (
    id INTEGER PRIMARY KEY, location TEXT, member TEXT, address INTEGER, uid INTEGER, sha256 INTEGER
);
CREATE TABLE names (name INTEGER, picture INTEGER);
"""
_ADD = "INSERT INTO pictures VALUES (?, ?, ?, ?, ?, ?)"
_ADD_NAME = "INSERT INTO names VALUES (?, ?)"
_NOTED = """
SELECT id, location FROM names JOIN pictures ON id = picture WHERE name = ? ORDER BY picture LIMIT 1
"""


class PictureIndex:
    """Finds pictures by their names.

    Attributes:
        count: the number of pictures; they are numbered from 0 on, in their order.
        any_is_noted, all_are_noted: whether pictures note an address.
        any_has_row: whether pictures, or what could not be fetched, note the row that asked for them.
    """

    def __init__(self, connection: sqlite3.Connection, pictures: Iterable[Noted]) -> None:
        self._connection = connection
        self.count, self.any_is_noted, self.all_are_noted = 0, False, True
        self.any_has_row = False
        connection.executescript(_TABLES)
        for picture, noted in pictures:
            self._add(picture, noted)
        connection.execute("CREATE INDEX by_name ON names (name, picture)")

    def _add(self, picture: Picture, noted: Mapping[str, str]) -> None:
        # No file has this name: one that is not UTF-8 cannot be found.
        texts = (text.encode(errors="replace").decode() for text in picture[:2])
        self._connection.execute(_ADD, (self.count, *texts, *picture[2:]))
        names = [("row", noted["row"])] if noted.get("row") else []
        self.any_has_row = self.any_has_row or bool(names)
        if not state_at(picture.location):
            names += [*_addresses_of(noted), *names_of(picture, noted.get("uid", ""))]
            self.any_is_noted = self.any_is_noted or picture.address != 0
            self.all_are_noted = self.all_are_noted and picture.address != 0
        self._connection.executemany(_ADD_NAME, [(_hash(name), self.count) for name in names])
        self.count += 1

    def noted(self, row: Row) -> tuple[int, str] | None:
        """Number and location of the picture that was fetched for ``row``, else one of its address.

        The former's location may say that it could not be fetched. Of the latter the first that notes an
        address of the row is taken, and one that notes the caption as well comes before: several pictures
        of one address are the same.
        """
        names: list[Name] = []
        if self.any_has_row and row.identity:
            names.append(("row", row.identity))
        if self.any_is_noted:
            captions = row.captions or ("",)
            names += [_pair(address, text) for address in row.addresses for text in captions]
            names += [("url", address) for address in row.addresses]
        for name in names:
            found = self._connection.execute(_NOTED, (_hash(name),)).fetchone()
            if found:
                return found
        return None

    def hits(self, names: Collection[Name]) -> tuple[dict[int, Picture], set[Name]]:
        """The pictures that have one of ``names``, by number, and the names that are left out.

        These are the names that more than eight pictures share.
        """
        name_of = {_hash(name): name for name in names}
        hashes = sorted(name_of)
        limit = len(hashes) * (MAX_SHARING + 1)
        rows = self._connection.execute(_find(len(hashes)), (*hashes, limit)).fetchall()
        if len(rows) <= MAX_SHARING:
            return {row[1]: Picture(*row[2:]) for row in rows}, set()
        if len(rows) == limit:
            each = (self._connection.execute(_find(1), (n, MAX_SHARING + 1)) for n in hashes)
            rows = [row for found in each for row in found]
        found, left_out = _without_shared(rows)
        return found, {name_of[hash_] for hash_ in left_out}

    def pictures(self, numbers: Iterable[int]) -> Iterator[tuple[int, str]]:
        """Number and location of the pictures with these numbers."""
        query = "SELECT location FROM pictures WHERE id = ?"
        for number in numbers:
            yield number, self._connection.execute(query, (number,)).fetchone()[0]


@cache
def _find(count: int) -> str:
    return f"""
    SELECT name, id, location, member, address, uid, sha256
    FROM names JOIN pictures ON id = picture WHERE name IN ({", ".join("?" * count)}) LIMIT ?
    """


def _without_shared(rows: list[tuple[Any, ...]]) -> tuple[dict[int, Picture], list[int]]:
    by_name: dict[int, dict[int, Picture]] = {}
    for name, number, *values in rows:
        by_name.setdefault(name, {})[number] = Picture(*values)
    left_out = [name for name, found in by_name.items() if len(found) > MAX_SHARING]
    few = [found for name, found in by_name.items() if name not in left_out]
    return {n: picture for found in few for n, picture in found.items()}, left_out


def _addresses_of(noted: Mapping[str, str]) -> Iterator[Name]:
    if url := noted.get("url"):
        yield _pair(url, noted.get("caption", ""))
        yield "url", url


def _pair(address: str, caption: str) -> Name:
    return "pair", f"{address}\n{caption}"


def _hash(name: Name) -> int:
    return mark("\0".join(name))
