"""Which image goes by which name: an index on the disk, for folders of more images than memory holds."""

from __future__ import annotations

import hashlib
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from pathlib import Path

from curate.run.cli import UserError

Name = tuple[str, str]
"""A kind of name, and the name."""

FILE = "file"
_FORMAT = 1  # raise it when an index of old would be misread
_SHARED = ("pair", "url")  # several images of one address show the same: the first serves
_PRAGMAS = "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;"  # it is renamed when complete
_TABLES = """
CREATE TABLE built_from (digest TEXT);
CREATE TABLE kinds (kind TEXT PRIMARY KEY);
CREATE TABLE images (id INTEGER PRIMARY KEY, location TEXT);
CREATE TABLE names (name INTEGER, image INTEGER);
CREATE TABLE claims (name INTEGER PRIMARY KEY, url INTEGER, shared INTEGER);
"""
_CLAIM = """
INSERT INTO claims SELECT ?1, ?2, 0 WHERE EXISTS (SELECT 1 FROM names WHERE name = ?1)
ON CONFLICT (name) DO UPDATE SET shared = shared OR url != excluded.url
"""
_FIND = "SELECT location FROM names JOIN images ON id = image WHERE name = ? ORDER BY image LIMIT 2"


class ImageIndex:
    """Finds an image by its names; one that several images have finds none of them.

    Names are kept as 64-bit hashes: with 10^7 images and as many rows, one wrong match is expected in
    some 10^4 data sets.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._kinds = {kind for (kind,) in connection.execute("SELECT kind FROM kinds")}

    def find(self, names: Iterable[Name]) -> str:
        """The location of the image that the first name that finds one finds; "" if none does."""
        for kind, name in names:
            if kind not in self._kinds:
                continue
            found = self._connection.execute(_FIND, (_hash(kind, name),)).fetchall()
            if len(found) == 1 or (found and kind in _SHARED):
                return found[0][0]
        return ""

    def has(self, kind: str) -> bool:
        """Whether any image goes by a name of this kind."""
        return kind in self._kinds

    def is_shared(self, file_name: str) -> bool:
        """Whether different addresses of the table end in the name of this image file."""
        query = "SELECT shared FROM claims WHERE name = ?"
        found = self._connection.execute(query, (_hash(FILE, file_name),)).fetchone()
        return bool(found and found[0])

    def close(self) -> None:
        """Let go of the file."""
        self._connection.close()


def opened(path: Path) -> ImageIndex:
    """The index at ``path``, for reading."""
    return ImageIndex(_connect(path))


def ensure(
    path: Path,
    digest: str,
    images: Callable[[], Iterator[tuple[str, Iterable[Name]]]],
    claims: Callable[[], Iterator[Name]],
) -> None:
    """Build the index at ``path``, unless it is there and was built from the same.

    Args:
        path: the file; it appears when it is complete.
        digest: of all that the index is built from.
        images: location and names of each image.
        claims: for each row of the table the last part of its address, and the address.

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
            _build(connection, digest, images(), claims())
        part.replace(path)
    except sqlite3.OperationalError as error:  # a full disk
        raise _not_written(path, error) from error
    finally:
        part.unlink(missing_ok=True)


def _not_written(path: Path, error: Exception) -> UserError:
    return UserError(
        f"the index of dataset.images_dir cannot be written to {path} ({error}); type "
        "dataset.index=FILE with a place that takes it"
    )


def _build(
    connection: sqlite3.Connection,
    digest: str,
    images: Iterator[tuple[str, Iterable[Name]]],
    claims: Iterator[Name],
) -> None:
    connection.executescript(_PRAGMAS + _TABLES)
    kinds: set[str] = set()
    for number, (location, names) in enumerate(images):
        text = location.encode(errors="replace").decode()  # a name that is no text finds no file
        connection.execute("INSERT INTO images VALUES (?, ?)", (number, text))
        for kind, name in names:
            kinds.add(kind)
            connection.execute("INSERT INTO names VALUES (?, ?)", (_hash(kind, name), number))
    connection.execute("CREATE INDEX by_name ON names (name, image)")
    connection.executemany("INSERT INTO kinds VALUES (?)", ((kind,) for kind in sorted(kinds)))
    if FILE in kinds:
        rows = ((_hash(FILE, name), _hash("url", url)) for name, url in claims)
        connection.executemany(_CLAIM, rows)
    connection.execute("INSERT INTO built_from VALUES (?)", (digest,))
    connection.commit()


def _digest_of(path: Path) -> str:
    """What the index was built from; "" for one that is missing or not ours."""
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


def _hash(kind: str, name: str) -> int:
    data = f"{kind}\0{name}".encode("utf-8", "surrogateescape")
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "big", signed=True)
