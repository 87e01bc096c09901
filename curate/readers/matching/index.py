"""An index of pictures by the names under which rows look for them, in memory or on disk.

Names are kept as 64-bit hashes: with 10^7 pictures and as many rows, one wrong match is expected in about
10^4 data sets.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import closing
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from curate.readers.matching.claims import Claim, Claims, Name, Picture, Row, mark, names_of
from curate.run.schema import UserError

_FORMAT = 2  # increase it when the format changes, so that older indexes are built again
_MAX_SHARING = 8  # pictures; a name that more of them share says nothing
_PRAGMAS = "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;"  # it is renamed when complete
_TABLES = """
CREATE TABLE built_from (digest TEXT);
CREATE TABLE noted (are_all INTEGER);
CREATE TABLE pictures (
    id INTEGER PRIMARY KEY, location TEXT, member TEXT, address INTEGER, uid INTEGER, sha256 INTEGER
);
CREATE TABLE names (name INTEGER, picture INTEGER);
CREATE TABLE claims (
    picture INTEGER PRIMARY KEY, rank INTEGER, claimant INTEGER, is_shared INTEGER, is_beside INTEGER
);
"""
_ADD = "INSERT INTO pictures VALUES (?, ?, ?, ?, ?, ?)"
_NOTED = "SELECT id, location FROM names JOIN pictures ON id = picture WHERE name = ? ORDER BY id LIMIT 1"

Noted = tuple[Picture, Mapping[str, str]]
"""A picture, and the texts noted of it: url, caption and uid, as far as they are."""


class Hit(NamedTuple):
    """A picture that has one of the names asked for: its number, itself, and the best claim on it."""

    number: int
    picture: Picture
    claim: Claim


class PictureIndex:
    """Finds pictures by their names.

    Attributes:
        all_are_noted: whether every picture notes an address.
    """

    all_are_noted: bool

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        (self.all_are_noted,) = connection.execute("SELECT are_all FROM noted").fetchone()

    def noted(self, row: Row) -> tuple[int, str] | None:
        """Number and location of the first picture that notes an address of ``row``.

        One that notes the caption as well comes first: several pictures of one address are the same.
        """
        captions = row.captions or ("",)
        pairs = (_pair(address, caption) for address in row.addresses for caption in captions)
        for name in chain(pairs, (("url", address) for address in row.addresses)):
            found = self._connection.execute(_NOTED, (_hash(name),)).fetchone()
            if found:
                return found
        return None

    def hits(self, names: Collection[Name]) -> tuple[list[Hit], bool]:
        """The pictures that have one of ``names``, and whether too many had one of them.

        A name that more than eight pictures share is left out.
        """
        hashes = sorted({_hash(name) for name in names})
        limit = len(hashes) * (_MAX_SHARING + 1)
        rows = self._connection.execute(_find(len(hashes)), (*hashes, limit)).fetchall()
        if len(rows) == limit:
            one = _find(1)
            asked = (self._connection.execute(one, (name, _MAX_SHARING + 1)) for name in hashes)
            rows = [row for found in asked for row in found.fetchall()]
        by_name: dict[int, dict[int, tuple[Any, ...]]] = {}
        for name, *values in rows:
            by_name.setdefault(name, {})[values[0]] = tuple(values)
        few = [found for found in by_name.values() if len(found) <= _MAX_SHARING]
        each = {number: values for found in few for number, values in found.items()}
        return [_hit(values) for values in each.values()], len(few) < len(by_name)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


@cache
def _find(count: int) -> str:
    return f"""
    SELECT name, id, location, member, address, uid, sha256, rank, claimant, is_shared, is_beside
    FROM names JOIN pictures ON id = names.picture LEFT JOIN claims ON claims.picture = id
    WHERE name IN ({", ".join("?" * count)}) LIMIT ?
    """


def _hit(values: tuple[Any, ...]) -> Hit:
    claim = Claim() if values[6] is None else Claim(*values[6:8], bool(values[8]), bool(values[9]))
    return Hit(values[0], Picture(*values[1:6]), claim)


def add_pictures(connection: sqlite3.Connection, pictures: Iterable[Noted]) -> int:
    """Make the tables and add the pictures in their order; gives their number."""
    connection.executescript(_PRAGMAS + _TABLES)
    number, are_all = -1, True
    for number, (picture, noted) in enumerate(pictures):
        # No file has this name: one that is not UTF-8 cannot be found.
        location, member, *marks = picture
        are_all = are_all and bool(picture.address)
        texts = (text.encode(errors="replace").decode() for text in (location, member))
        connection.execute(_ADD, (number, *texts, *marks))
        names = chain(_addresses_of(noted), names_of(picture, noted.get("uid", "")))
        connection.executemany(
            "INSERT INTO names VALUES (?, ?)", [(_hash(name), number) for name in names]
        )
    connection.execute("CREATE INDEX by_name ON names (name, picture)")
    connection.execute("INSERT INTO noted VALUES (?)", (are_all,))
    return number + 1


def add_claims(connection: sqlite3.Connection, claims: Claims) -> None:
    """Add the best claim on each picture."""
    connection.executemany(
        "INSERT INTO claims VALUES (?, ?, ?, ?, ?)", ((number, *claim) for number, claim in claims)
    )


def _addresses_of(noted: Mapping[str, str]) -> Iterator[Name]:
    if url := noted.get("url"):
        yield _pair(url, noted.get("caption", ""))
        yield "url", url


def _pair(address: str, caption: str) -> Name:
    return "pair", f"{address}\n{caption}"


def _hash(name: Name) -> int:
    return mark("\0".join(name))


def opened(path: Path) -> PictureIndex:
    """The index at ``path``, for reading."""
    return PictureIndex(_connect(path))


def ensure(path: Path, digest: str, build: Callable[[sqlite3.Connection], None]) -> None:
    """Let ``build`` fill the index at ``path``, unless the one there was built from the same input.

    Args:
        path: the file; it is renamed to this when complete.
        digest: a hash of all input of the index.
        build: adds pictures and claims.

    Raises:
        UserError: the file cannot be written.
    """
    digest = f"{_FORMAT} {digest}"
    if _digest_of(path) == digest:
        return
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(b"")
    except OSError as error:
        raise _not_written(path, error) from error
    try:
        with closing(sqlite3.connect(part)) as connection:
            build(connection)
            connection.execute("INSERT INTO built_from VALUES (?)", (digest,))
            connection.commit()
        part.replace(path)
    except sqlite3.OperationalError as error:  # a full disk
        raise _not_written(path, error) from error
    finally:
        part.unlink(missing_ok=True)


def _not_written(path: Path, error: Exception) -> UserError:
    return UserError(
        f"the index of dataset.images_dir cannot be written to {path} ({error}); type "
        "dataset.index=FILE with a file that can be written"
    )


def _digest_of(path: Path) -> str:
    """The digest that the index was built with; "" if it is missing or not an index."""
    if not path.is_file():
        return ""
    try:
        with closing(_connect(path)) as connection:
            return connection.execute("SELECT digest FROM built_from").fetchone()[0]
    except sqlite3.DatabaseError:
        return ""


def _connect(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(
        f"{path.resolve().as_uri()}?mode=ro&immutable=1", uri=True, check_same_thread=False
    )
