"""A shard of fetched pictures in img2dataset's layout, made from its journal; see ``shard_files``.

No file holds a time, so equal answers give equal bytes.
"""

from __future__ import annotations

import hashlib
import json
import os
import tarfile
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from curate.fetch.answer import STATES, STORED
from curate.fetch.journal import AT, INDEX, MD5, SHA256, Place, places
from curate.fetch.settings import SETTINGS
from curate.fetch.shard_files import ShardFiles, damaged, key_of
from curate.run import parquet
from curate.run.files import HashingWriter, atomic_write, sha256_of, sync, write_certified
from curate.run.schema import UserError
from curate.run.tar import END_OF_TAR, header

_OF_TABLE = (
    "state",
    "http_status",
    SETTINGS,
)  # columns that the notes beside a picture do not have


def prepare() -> None:
    """Load what `build` needs, so that its thread does not: to import is a third of a second's work in one piece."""
    import pyarrow as pa

    pa.array([""])  # pandas is imported by the first array


def build(
    files: ShardFiles,
    number: int,
    rows_per_shard: int,
    rest: Callable[[], object] = lambda: None,
    answered: Collection[int] = (),
) -> None:
    """Write the shard that a journal holds the answers of, and delete the journal.

    The files are written aside and renamed one after the other. Killed at any moment, the journal is still
    there, or the shard is finished; building it again gives the same bytes.

    Args:
        files, number, rows_per_shard: of the shard.
        rest: called now and then, to let others work.
        answered: rows that must have an answer in the journal.

    Raises:
        OSError: the disk is full, or refuses.
        UserError: a picture of the earlier tar is damaged, or the journal is.
    """
    found: dict[int, Place] = {}
    for place in places(files.journal):
        found[place.meta[INDEX]] = place
        rest()
    if lost := len(set(answered) - found.keys()):
        raise UserError(
            f"{files.journal} is damaged: {lost:,} of the {len(answered):,} answers in it cannot be read. The "
            "same command again asks for these once more"
        )
    keyed = [(key_of(number, index, rows_per_shard), found[index]) for index in sorted(found)]
    tar, table, stats = (files.work / name for name in files.names)
    with _Bodies(files) as bodies:
        rows, tar_sha256 = _write_tar(tar, keyed, bodies, rest)
    _write_table(table, rows)
    hashes = {
        "tar_bytes": tar.stat().st_size,
        "tar_sha256": tar_sha256,
        "parquet_bytes": table.stat().st_size,
        "parquet_sha256": sha256_of(table),
    }
    write_certified(stats, _counts(rows) | hashes)
    for part, path in ((tar, files.tar), (table, files.table), (stats, files.stats)):
        part.replace(path)
    sync(files.folder)
    files.journal.unlink()
    files.earlier_tar.unlink(missing_ok=True)


def _write_tar(
    tar: Path, keyed: list[tuple[str, Place]], bodies: _Bodies, rest: Callable[[], object]
) -> tuple[list[dict[str, Any]], str]:
    """Write the stored pictures with their keys; the rows of the table, of all answers, and the tar's SHA-256."""
    rows: list[dict[str, Any]] = []
    with atomic_write(tar) as stream, HashingWriter(stream) as hashing:
        for key, place in keyed:
            rest()
            body = bodies.read(place)
            rows.append(_row(key, place.meta, body))
            if body:
                for name, content in _members(rows[-1], place.meta["extension"], body):
                    hashing.write(header(name, len(content)), content, _padding(len(content)))
        hashing.write(END_OF_TAR)
    return rows, hashing.hexdigest()


def _counts(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """What img2dataset's ``_stats.json`` counts, without its times."""
    states = Counter(row["state"] for row in rows)
    stored = states.pop(STORED, 0)
    return {
        "count": len(rows),
        "successes": stored,
        "failed_to_download": len(rows) - stored,
        "failed_to_resize": 0,
        "status_dict": {"success": stored, **states},
    }


class _Bodies:
    """The pictures of a shard: in its journal, or in its earlier tar."""

    def __init__(self, files: ShardFiles) -> None:
        self._files = files
        self._open: dict[Path, int] = {}

    def __enter__(self) -> _Bodies:
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._open.values():
            os.close(file)

    def read(self, place: Place) -> bytes:
        """The bytes of a stored picture, b"" of any other row."""
        if AT not in place.meta:
            return self._read(self._files.journal, place.offset, place.size)
        body = self._read(self._files.earlier_tar, *place.meta[AT])
        if hashlib.sha256(body).hexdigest() != place.meta[SHA256]:
            raise damaged(self._files)
        return body

    def _read(self, path: Path, offset: int, size: int) -> bytes:
        if path not in self._open:
            self._open[path] = os.open(path, os.O_RDONLY)
        return os.pread(self._open[path], size, offset)


def _row(key: str, meta: Mapping[str, Any], body: bytes) -> dict[str, Any]:
    """A row of the table: img2dataset's columns first."""
    stored = meta["state"] == STORED
    size = {name: meta[name] if stored else None for name in ("width", "height")}
    return {
        "key": key,
        "url": meta["url"],
        "caption": meta["caption"],
        "status": "success" if stored else "failed_to_download",
        "error_message": None if stored else _message(meta),
        **size,
        **{f"original_{name}": value for name, value in size.items()},
        "sha256": meta[SHA256] if stored else None,
        "md5": (meta.get(MD5) or _md5(body)) if stored else None,
        "row": meta["row"],
        "state": meta["state"],
        "http_status": meta["http_status"],
        SETTINGS: meta[SETTINGS],
    }


def _md5(body: bytes) -> str:
    return hashlib.md5(body, usedforsecurity=False).hexdigest()


def _message(meta: Mapping[str, Any]) -> str:
    said = STATES[meta["state"]]
    return f"{said}: {meta['error']}" if meta["error"] else said


def _members(row: Mapping[str, Any], extension: str, body: bytes) -> Iterator[tuple[str, bytes]]:
    """Names and contents of a sample, in the order of their extensions as webdataset writes them."""
    notes = {name: value for name, value in row.items() if name not in _OF_TABLE}
    contents = {
        extension: body,
        "json": json.dumps(notes).encode(),
        "txt": row["caption"].encode(errors="replace"),
    }
    for name in sorted(contents):
        yield f"{row['key']}.{name}", contents[name]


def _padding(size: int) -> bytes:
    return bytes(-size % tarfile.BLOCKSIZE)


def _write_table(path: Path, rows: list[dict[str, Any]]) -> None:
    import pyarrow as pa

    whole = ("width", "height", "original_width", "original_height", "http_status", SETTINGS)
    names = (
        *("key", "url", "caption", "status", "error_message", "width", "height"),
        *("original_width", "original_height", "sha256", "md5", "row", *_OF_TABLE),
    )
    schema = pa.schema([(name, pa.int32() if name in whole else pa.string()) for name in names])
    columns: list[pa.Array] = []
    for field in schema:
        values = [row[field.name] for row in rows]
        try:
            columns.append(pa.array(values, field.type))
        except UnicodeEncodeError:
            columns.append(pa.array([_plain(value) for value in values], field.type))
    parquet.write_table(path, pa.table(columns, schema=schema))


def _plain(value: Any) -> Any:
    """A value whose text UTF-8 can express."""
    return value.encode(errors="replace").decode() if isinstance(value, str) else value
