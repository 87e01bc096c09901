"""Plain copies of compressed tars: a picture is read by its place in the tar, which compression does not allow."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import lzma
import re
import tarfile
import zlib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import IO, Any

from curate.readers.file_signature import HEAD_BYTES, identify
from curate.readers.files import version_of
from curate.readers.shards.paths import stem_of
from curate.readers.tars import check_tar
from curate.run.files import atomic_write
from curate.run.remote_files import RemotePath
from curate.run.schema import UserError

_OPEN: dict[str, Any] = {
    "compressed by gzip": gzip.open,
    "compressed by bzip2": bz2.open,
    "compressed by xz": lzma.open,
}
_BLOCK = 1 << 20
_WHOLE, _CUT = ".tar", ".cut.tar"


class PlainTars:
    """The shards of a data set by name; a compressed one is unpacked once, when it is first asked for."""

    def __init__(self, shards: Mapping[str, Path], folder: Path) -> None:
        """Keep copies below ``folder``, hidden, so that no data set takes them for its own shards.

        Raises:
            UserError: a file is neither a tar nor a compressed one; says which, and what it is.
        """
        self._shards = shards
        self._folder = folder / ".plain"
        self._compressed = {name for name, path in shards.items() if not _is_plain(path)}
        self._lock = Lock()  # pictures are loaded by several threads

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ |= {**state, "_lock": Lock()}

    def path_of(self, name: str) -> Path:
        """The plain tar of the shard ``name``.

        Raises:
            OSError: the copy cannot be written.
        """
        if name not in self._compressed:
            return self._shards[name]
        with self._lock:
            return self._copy_of(self._shards[name])

    def is_cut(self, name: str) -> bool:
        """Whether the shard's compression is damaged; its copy ends there."""
        return name in self._compressed and self.path_of(name).name.endswith(_CUT)

    @property
    def note(self) -> str:
        """How many shards are copied, and where; "" if none is."""
        first = min(self._compressed, default="")
        found = f"{len(self._compressed)}, such as {self._shards[first]}" if first else ""
        return (
            found and f"compressed tars, of which plain copies are kept in {self._folder}: {found}"
        )

    def _copy_of(self, path: Path) -> Path:
        place = hashlib.blake2b(str(path.absolute()).encode(errors="replace"), digest_size=6)
        safe = re.sub(r"[^A-Za-z0-9]+", "-", stem_of(path).name)[-40:]
        start = f"{safe}-{place.hexdigest()}"
        copy = self._folder / f"{start}-{version_of(path)}"
        for kind in (_WHOLE, _CUT):
            if (found := copy.with_name(copy.name + kind)).is_file():
                return found
        for old in self._folder.glob(f"{start}-*.tar"):
            old.unlink(missing_ok=True)
        return _unpacked(path, copy)


def _is_plain(path: Path) -> bool:
    """Whether a file is a plain tar; else it is a compressed one."""
    if isinstance(path, RemotePath):
        return True
    kind = _kind(path)
    if kind not in _OPEN:
        check_tar(path)
        return True
    head = io.BytesIO()
    with _OPEN[kind](path, "rb") as stream:
        _copy(stream, head, tarfile.BLOCKSIZE)
    if not head.getvalue():
        raise UserError(f"{path} is {kind}, and nothing of it can be unpacked; download it again")
    check_tar(path, head.getvalue())
    return False


def _kind(path: Path) -> str:
    with path.open("rb") as stream:
        return identify(stream.read(HEAD_BYTES))


def _unpacked(path: Path, copy: Path) -> Path:
    """Unpack ``path`` up to any damage; the copy's name says whether there is some."""
    whole, cut = (copy.with_name(copy.name + end) for end in (_WHOLE, _CUT))
    with (
        suppress(_Damaged),
        atomic_write(whole) as copied,
        _OPEN[_kind(path)](path, "rb") as stream,
    ):
        if not _copy(stream, copied):
            raise _Damaged
    if whole.is_file():
        return whole
    with atomic_write(cut) as copied, _OPEN[_kind(path)](path, "rb") as stream:
        _copy(stream, copied)
    return cut


def _copy(stream: io.BufferedIOBase, copied: IO[bytes], size: int | None = None) -> bool:
    """Copy ``size`` bytes, or all, up to any damage; False if there is some."""
    try:
        while size != 0 and (block := stream.read1(size or _BLOCK)):
            copied.write(block)
            size = size and size - len(block)
    except (EOFError, zlib.error, lzma.LZMAError):
        return False
    except OSError as error:
        if error.errno is not None:  # the disk's; those of gzip and bz2 have no number
            raise
        return False
    return True


class _Damaged(Exception):
    """The compressed data is damaged."""
