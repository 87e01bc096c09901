"""The hashes of pictures that a data set publishes beside its addresses, looked up in bounded memory."""

from __future__ import annotations

import re
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from curate.readers.matching.claims import mark
from curate.run.schema import UserError

_MD5, _SHA256 = re.compile(r"[0-9a-f]{32}"), re.compile(r"[0-9a-f]{64}")
_BATCH = 10_000  # lines
_CACHE_KIB = 32 * 1024  # of pages in memory
_TABLE = "CREATE TABLE hashes (url INTEGER, md5 BLOB, sha256 BLOB)"
_FIND = "SELECT DISTINCT md5, sha256 FROM hashes WHERE url = ? LIMIT 2"


class Hashes(NamedTuple):
    """What is known of a picture: lower-case hex, "" for nothing."""

    md5: str = ""
    sha256: str = ""


NONE = Hashes()


def hashes_in(*texts: str) -> Hashes:
    """The first MD5 and the first SHA-256 among texts; others are none."""
    lower = [text.strip().lower() for text in texts]
    md5 = next((text for text in lower if _MD5.fullmatch(text)), "")
    return Hashes(md5, next((text for text in lower if _SHA256.fullmatch(text)), ""))


class HashFile:
    """Finds the hashes that ``fetch.hashes`` has for an address."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def find(self, url: str) -> Hashes:
        """The hashes of an address; none where the file has none, or several that differ."""
        found = self._connection.execute(_FIND, (mark(url),)).fetchall()
        if len(found) != 1:
            return NONE
        return Hashes(*(value.hex() for value in found[0]))


def check(path: Path) -> None:
    """Refuse a file without an address and its hash.

    Raises:
        FileNotFoundError: it is missing.
        UserError: no line has an address and a hash.
    """
    if not path.is_file():
        raise FileNotFoundError(f"fetch.hashes={path} was not found; type fetch.hashes=FILE")
    if next(_lines(path), None) is None:
        raise UserError(
            f"fetch.hashes={path} has no line of an address and an MD5 or SHA-256 with a tab between; "
            "type fetch.hashes=null to fetch without"
        )


@contextmanager
def opened(path: Path) -> Iterator[HashFile]:
    """The file of addresses and hashes, in a temporary database by the addresses' 8-byte marks.

    Each line has an address and, in any order, an MD5 or a SHA-256 of its picture or both, with tabs between,
    as CC12M publishes it. Lines without a hash, such as a header, are left out. Two addresses of N share a
    mark with a chance of N^2 / 2^65.

    Raises:
        FileNotFoundError: it is missing.
        UserError: no line has an address and a hash.
    """
    check(path)
    with (
        tempfile.TemporaryDirectory(prefix="curate-hashes-") as folder,
        closing(sqlite3.connect(Path(folder, "hashes.sqlite"))) as connection,
    ):
        connection.executescript(
            f"PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA cache_size = -{_CACHE_KIB}; "
            f"{_TABLE}"
        )
        lines = _lines(path)
        while batch := list(islice(lines, _BATCH)):
            connection.executemany("INSERT INTO hashes VALUES (?, ?, ?)", batch)
        connection.execute("CREATE INDEX by_url ON hashes (url)")
        yield HashFile(connection)


def _lines(path: Path) -> Iterator[tuple[int, bytes, bytes]]:
    with path.open(encoding="utf-8", errors="replace", newline="\n") as stream:
        for line in stream:
            url, *rest = line.rstrip("\r\n").split("\t")
            found = hashes_in(*rest)
            if url and found != NONE:
                yield mark(url.strip()), bytes.fromhex(found.md5), bytes.fromhex(found.sha256)
