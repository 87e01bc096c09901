"""Tars that lie elsewhere: their headers and texts are kept on this machine, and a picture is read by its place.

To find the members of a tar each header has to be read, and where pictures are small nearly every block of the
tar holds one. So the first pass reads a tar from its beginning on, in blocks of 4 MiB, skips members that are larger,
and keeps what a reader looks at: headers, texts, and the first bytes of what may be a picture. Later passes, and
other commands, ask for nothing.
"""

from __future__ import annotations

import hashlib
import io
import struct
import zlib
from bisect import bisect_right
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import accumulate
from operator import add
from pathlib import Path
from typing import IO, Any

from curate.readers.file_signature import HEAD_BYTES
from curate.readers.files import IMAGE_SUFFIXES, TEXT_KINDS
from curate.readers.tars import LINK, BrokenTar, files_in
from curate.run.files import atomic_write
from curate.run.remote_files import RemotePath, refusal
from curate.run.schema import UserError

_MOST_BYTES = 2**24  # of a text that is kept


@dataclass(frozen=True, slots=True)
class RemoteTar(RemotePath):
    """A tar elsewhere; it is the one that was listed, or its reader stops.

    Attributes:
        kept: the folder of what is kept of it.
    """

    kept: Path = field(default=Path(), compare=False)

    @classmethod
    def of(cls, path: RemotePath, spool: Path) -> RemoteTar:
        """The tar that was listed as ``path``; what is kept of it goes below ``spool``."""
        return cls(path.url, path.stat(), spool / ".remote")

    def version(self) -> str:
        """The version that was listed."""
        return self.stat().version

    def refuse_another(self) -> None:
        """Raise a ``UserError`` if another tar is there by now, or none."""
        if RemotePath(self.url).version() != self.version():
            raise UserError(
                f"{self.url} was replaced or removed since it was listed, so its pictures are at other places; type "
                "the same command again once nobody writes there"
            )

    def open(self, mode: str = "rb") -> IO[bytes]:
        """What is kept of the tar, as a file of its size; anything else is asked for.

        Raises:
            Unreachable: the tar cannot be read now.
            UserError: this user may not read it, or another one is there.
        """
        digest = hashlib.blake2b(f"{self.url}\0{self.version()}".encode(), digest_size=12)
        path = self.kept / f"{digest.hexdigest()}.headers"
        if not path.is_file():
            self.refuse_another()
            with atomic_write(path) as stream:
                stream.write(_written(_pieces_of(self)))
        return _Kept(self, path.read_bytes())  # type: ignore[return-value]


def _pieces_of(tar: RemoteTar) -> dict[int, bytes]:
    """Offset and bytes of everything that a reader looks at."""
    seen = _Recorded(tar)
    try:
        with suppress(BrokenTar):
            for name, offset, size in files_in(seen):  # type: ignore[arg-type]
                suffix = name.lower().rpartition(".")[2]
                if size == LINK or f".{suffix}" in IMAGE_SUFFIXES:
                    continue
                most = _MOST_BYTES if suffix in TEXT_KINDS else HEAD_BYTES
                with seen.open() as stream:
                    stream.seek(offset)
                    stream.read(min(size, most))
    except OSError as error:
        raise refusal(tar, error) from error
    return seen.pieces


class _Recorded:
    """A tar whose opened streams note what is read of it."""

    def __init__(self, tar: RemoteTar) -> None:
        self.pieces: dict[int, bytes] = {}
        self._tar = tar
        self._stream = RemotePath.open(tar)

    def __str__(self) -> str:
        return self._tar.url

    def open(self, mode: str = "rb") -> Any:
        return _Recording(self._stream, self.pieces)


class _Recording(io.RawIOBase):
    """One of them: they share a buffer, and each has a place of its own."""

    def __init__(self, stream: IO[bytes], pieces: dict[int, bytes]) -> None:
        self._stream, self._pieces, self._at = stream, pieces, 0

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = 0) -> int:
        assert whence == 0, "tarfile seeks from the beginning"
        self._at = offset
        return offset

    def read(self, size: int = -1) -> bytes:
        self._stream.seek(self._at)
        data = self._stream.read(size)
        if len(data) > len(self._pieces.get(self._at, b"")):
            self._pieces[self._at] = data
        self._at += len(data)
        return data


def _written(pieces: dict[int, bytes]) -> bytes:
    """Pieces as they are kept: how many, their offsets and lengths, their bytes; in order, without overlap."""
    starts: list[int] = []
    runs: list[bytearray] = []
    for offset in sorted(pieces):
        data, end = pieces[offset], starts[-1] + len(runs[-1]) if starts else -1
        if offset <= end:
            runs[-1] += data[end - offset :]
        elif data:
            starts.append(offset)
            runs.append(bytearray(data))
    numbers = (len(starts), *starts, *map(len, runs))
    return zlib.compress(struct.pack(f"<{len(numbers)}q", *numbers) + b"".join(runs), 1)


class _Kept(io.RawIOBase):
    """A tar of which some pieces are here."""

    def __init__(self, tar: RemoteTar, written: bytes) -> None:
        data = zlib.decompress(written)
        (count,) = struct.unpack_from("<q", data)
        numbers = struct.unpack_from(f"<{2 * count}q", data, 8)
        lengths = numbers[count:]
        self._tar, self._data, self._at = tar, data, 0
        self._starts = numbers[:count]
        self._ends = list(map(add, self._starts, lengths))
        self._places = list(accumulate(lengths, initial=8 + 16 * count))
        self._size = tar.stat().st_size

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = max(0, offset + (0, self._at, self._size)[whence])
        return self._at

    def read(self, size: int = -1) -> bytes:
        end = self._size if size is None or size < 0 else min(self._size, self._at + size)
        start = self._at
        if start >= end:
            return b""
        self._at = end
        i = bisect_right(self._starts, start) - 1
        if i >= 0 and end <= self._ends[i]:
            place = self._places[i] + start - self._starts[i]
            return self._data[place : place + end - start]
        self._tar.refuse_another()
        return RemotePath.read_range(self._tar, start, end - start)
