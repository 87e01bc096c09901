"""An index of images by their names, on disk, for folders with more images than fit into memory."""

from __future__ import annotations

import hashlib
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from pathlib import Path

from curate.run.schema import UserError

Name = tuple[str, str]
"""The kind of a name (url, stem, file, ...), and the name."""

FILE = "file"
_FORMAT = 1  # increase it when the format changes, so that older indexes are built again
_MAY_REPEAT = ("pair", "url")  # several images of one URL are the same picture: the first is used
_PRAGMAS = "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;"  # it is renamed when complete
# claims: for each file name at the end of one of the table's URLs, a URL, and whether others end in it.
_TABLES = """
CREATE TABLE built_from (digest TEXT);
CREATE TABLE kinds (kind TEXT PRIMARY KEY);
CREATE TABLE images (id INTEGER PRIMARY KEY, location TEXT);
CREATE TABLE names (name INTEGER, image INTEGER);
CREATE TABLE claims (name INTEGER PRIMARY KEY, url INTEGER, shared INTEGER);
"""
_ADD_CLAIM = """
INSERT INTO claims SELECT ?1, ?2, 0 WHERE EXISTS (SELECT 1 FROM names WHERE name = ?1)
ON CONFLICT (name) DO UPDATE SET shared = shared OR url != excluded.url
"""
_FIND = "SELECT location FROM names JOIN images ON id = image WHERE name = ? ORDER BY image LIMIT 2"


class ImageIndex:
    """Finds an image by its names; a name that several images share finds none of them.

    Names are kept as 64-bit hashes: with 10^7 images and as many rows, one wrong match is expected in
    about 10^4 data sets.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._kinds = {kind for (kind,) in connection.execute("SELECT kind FROM kinds")}

    def find(self, names: Iterable[Name]) -> str:
        """The location of the first image that one of ``names``, in order, finds; "" for none."""
        for kind, name in names:
            if kind not in self._kinds:
                continue
            found = self._connection.execute(_FIND, (_hash(kind, name),)).fetchall()
            if len(found) == 1 or (found and kind in _MAY_REPEAT):
                return found[0][0]
        return ""

    def has(self, kind: str) -> bool:
        """Whether any image has a name of this kind."""
        return kind in self._kinds

    def is_shared(self, file_name: str) -> bool:
        """Whether several URLs of the table end in this file name."""
        query = "SELECT shared FROM claims WHERE name = ?"
        found = self._connection.execute(query, (_hash(FILE, file_name),)).fetchone()
        return bool(found and found[0])

    def close(self) -> None:
        """Close the file."""
        self._connection.close()


def opened(path: Path) -> ImageIndex:
    """The index at ``path``, for reading."""
    return ImageIndex(_connect(path))


def ensure(
    path: Path,
    digest: str,
    images: Callable[[], Iterator[tuple[str, Iterable[Name]]]],
    url_names: Callable[[], Iterator[tuple[str, str]]],
) -> None:
    """Build the index at ``path``, unless the one there was built from the same input.

    Args:
        path: the file; it is renamed to this when complete.
        digest: a hash of all input of the index.
        images: location and names of each image.
        url_names: the last part of each row's URL, and the URL.

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
            _build(connection, digest, images(), url_names())
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


def _build(
    connection: sqlite3.Connection,
    digest: str,
    images: Iterator[tuple[str, Iterable[Name]]],
    url_names: Iterator[tuple[str, str]],
) -> None:
    connection.executescript(_PRAGMAS + _TABLES)
    kinds: set[str] = set()
    for number, (location, names) in enumerate(images):
        text = location.encode(
            errors="replace"
        ).decode()  # no file has this name: one that is not UTF-8 cannot be found
        connection.execute("INSERT INTO images VALUES (?, ?)", (number, text))
        for kind, name in names:
            kinds.add(kind)
            connection.execute("INSERT INTO names VALUES (?, ?)", (_hash(kind, name), number))
    connection.execute("CREATE INDEX by_name ON names (name, image)")
    connection.executemany("INSERT INTO kinds VALUES (?)", ((kind,) for kind in sorted(kinds)))
    if FILE in kinds:
        rows = ((_hash(FILE, name), _hash("url", url)) for name, url in url_names)
        connection.executemany(_ADD_CLAIM, rows)
    connection.execute("INSERT INTO built_from VALUES (?)", (digest,))
    connection.commit()


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


def _hash(kind: str, name: str) -> int:
    data = f"{kind}\0{name}".encode("utf-8", "surrogateescape")
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "big", signed=True)
