"""The journal of a shard: every answer at once on disk, so that a killed process has lost none of them.

A file of records, each with the length of its two parts and their CRC-32:

    META BYTES (u32)  BODY BYTES (u32)  CRC-32 of all else (u32)  META (JSON)  BODY

Little-endian. A record is written by one call of the system, so that whatever kills the process leaves whole
records and at most one that is cut off at the end. When the file is opened it is read up to the first record
that is cut off or damaged, and ends there.

A record of an answer that an earlier shard holds has no body, but says where it is in that shard's tar, which
lies beside the journal under another name: so a shard can be begun again without copying it.
"""

from __future__ import annotations

import json
import os
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from curate.run.files import naming

_HEAD = struct.Struct("<II")
_CRC = struct.Struct("<I")
_HEAD_BYTES = _HEAD.size + _CRC.size
_BLOCK_BYTES = 1 << 20

INDEX = "index"
"""The key of a record's meta that says which row of the shard it answers."""

SHA256, MD5 = "sha256", "md5"
"""The hashes of a picture."""

AT = "at"
"""Of a picture that is in the shard's earlier tar: its offset and size there."""


class Place(NamedTuple):
    """Where a record is: offset of its body in the file, bytes of the body, and what is said of it."""

    offset: int
    size: int
    meta: dict[str, Any]


def encoded(meta: Mapping[str, Any], body: bytes) -> bytes:
    """The bytes of one record."""
    said = json.dumps(meta, separators=(",", ":")).encode()
    head = _HEAD.pack(len(said), len(body))
    return b"".join((head, _CRC.pack(_crc(head, said, body)), said, body))


def places(path: Path) -> Iterator[Place]:
    """The records of a journal up to the first one that is cut off or damaged, in the order of writing."""
    # Large reads: each one lets other threads run, and this one wait for its turn.
    with path.open("rb", buffering=_BLOCK_BYTES) as stream:
        end = stream.seek(0, os.SEEK_END)
        offset = stream.seek(0)
        while end - offset >= _HEAD_BYTES:
            start = stream.read(_HEAD_BYTES)
            said_bytes, body_bytes = _HEAD.unpack(start[: _HEAD.size])
            whole = _HEAD_BYTES + said_bytes + body_bytes
            if whole > end - offset:
                return
            said, body = stream.read(said_bytes), stream.read(body_bytes)
            if _CRC.pack(_crc(start[: _HEAD.size], said, body)) != start[_HEAD.size :]:
                return
            yield Place(offset + _HEAD_BYTES + said_bytes, body_bytes, json.loads(said))
            offset += whole


class Journal:
    """A journal that answers are added to; nothing is buffered.

    Attributes:
        path: its file, made by the first answer.
        size: bytes of whole records.
        indices: the rows of the shard that have an answer that counts.
        doubtful: of these, what is said of those that may not stand.
    """

    def __init__(
        self,
        path: Path,
        counts: Callable[[dict[str, Any]], bool],
        is_doubtful: Callable[[dict[str, Any]], bool] = lambda _: False,
    ) -> None:
        """Open what is there and cut off what is damaged at its end.

        Args:
            path: of the file.
            counts: whether what is said of an answer is one that counts; of several to a row the last does.
            is_doubtful: whether one that counts may not stand.

        Raises:
            OSError: the file cannot be read or written.
        """
        self.path = path
        self.size = 0
        self.indices: set[int] = set()
        self.doubtful: dict[int, dict[str, Any]] = {}
        self._file: int | None = None
        self._is_synced = True
        with suppress(FileNotFoundError):
            for place in places(path):
                index, is_counted = place.meta[INDEX], counts(place.meta)
                (self.indices.add if is_counted else self.indices.discard)(index)
                self.doubtful.pop(index, None)
                if is_counted and is_doubtful(place.meta):
                    self.doubtful[index] = place.meta
                self.size = place.offset + place.size
            if path.stat().st_size > self.size:
                os.truncate(path, self.size)

    def append(self, meta: Mapping[str, Any], body: bytes) -> None:
        """Write one answer: after this call no end of the process loses it.

        Raises:
            OSError: the disk is full, or refuses; what was written of the record is taken back.
        """
        record = encoded(meta, body)
        with naming(self.path):
            file = self._opened()
            written = os.write(file, record)
            try:
                while written < len(record):  # a full disk: the next call says so
                    written += os.write(file, record[written:])
            except OSError:
                os.ftruncate(file, self.size)
                raise
        self.size += len(record)
        self.indices.add(meta[INDEX])
        self._is_synced = False

    def sync(self) -> None:
        """Bring what was written to the disk, so that a loss of power loses none of it either."""
        if not self._is_synced:
            self._is_synced = True
            os.fsync(self._opened())

    def close(self) -> None:
        """Close the file; the next answer opens it again."""
        if self._file is not None:
            file, self._file = self._file, None
            os.close(file)

    def _opened(self) -> int:
        if self._file is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        return self._file


def _crc(*parts: bytes) -> int:
    crc = 0
    for part in parts:
        crc = zlib.crc32(part, crc)
    return crc
