"""Files that lie elsewhere, used as paths of this machine are: ``s3://bucket/a.parquet``; see ``remote``."""

from __future__ import annotations

import io
import posixpath
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Any

from curate.run.remote import Unreachable, arrow_of, check, filesystem, shown
from curate.run.schema import UserError

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

_MAGIC = re.compile(r"[*?\[]")
_BLOCK_BYTES = 4 * 2**20  # of one request, where a file is read from its beginning on


def refusal(path: RemotePath, error: OSError) -> UserError | Unreachable:
    """What to raise where a file that is there cannot be read: a ``UserError`` if this user may not."""
    place = shown(path.url)
    if isinstance(error, PermissionError) or "ACCESS_DENIED" in str(error):
        return UserError(
            f"{place} may not be read ({error}); give credentials in the environment that may, and type the same "
            "command again, which goes on from there"
        )
    return Unreachable(
        f"{place} cannot be read ({error}); type the same command again, which goes on from there"
    )


@dataclass(frozen=True, slots=True)
class Status:
    """Of ``os.stat_result``, what is known of a file elsewhere.

    Attributes:
        st_size: in bytes.
        version: its entity tag, or its size and the time of its last change.
    """

    st_size: int
    version: str


@dataclass(frozen=True, slots=True, order=True)
class RemotePath:
    """A file elsewhere, used as a ``pathlib.Path`` of a file is.

    Attributes:
        url: with scheme and bucket.
        status: as it was listed; None asks for it.
    """

    url: str
    status: Status | None = field(default=None, compare=False)

    def __str__(self) -> str:
        return self.url

    @property
    def name(self) -> str:
        """The last part."""
        return posixpath.basename(self.url)

    @property
    def stem(self) -> str:
        """The name without its suffix."""
        return posixpath.splitext(self.name)[0]

    @property
    def suffix(self) -> str:
        """As ``.tar``; "" for none."""
        return posixpath.splitext(self.name)[1]

    @property
    def parent(self) -> RemotePath:
        """What has the file in it."""
        return RemotePath(posixpath.dirname(self.url))

    @property
    def parents(self) -> tuple[RemotePath, ...]:
        """None, of which a path on this machine could be one."""
        return ()

    def resolve(self) -> RemotePath:
        """Itself: nothing links elsewhere."""
        return self

    def absolute(self) -> RemotePath:
        """Itself."""
        return self

    def with_name(self, name: str) -> RemotePath:
        """Another file beside it."""
        return RemotePath(f"{posixpath.dirname(self.url)}/{name}")

    def with_suffix(self, suffix: str) -> RemotePath:
        """A file beside it of another suffix."""
        return self.with_name(self.stem + suffix)

    def stat(self) -> Status:
        """Size and version.

        Raises:
            FileNotFoundError: nothing is there.
        """
        if self.status is not None:
            return self.status
        system, path = filesystem(self.url)
        return _status(system.info(path))

    def version(self) -> str:
        """The version that is there now; "" for none."""
        try:
            return RemotePath(self.url).stat().version
        except FileNotFoundError:
            return ""

    def is_file(self) -> bool:
        """Whether it is there."""
        return bool(self.version())

    def open(self, mode: str = "rb") -> IO[bytes]:
        """Open it for reading; what is read from the beginning on is fetched in blocks of 4 MiB."""
        assert mode == "rb", "is only read"
        return io.BufferedReader(_Stream(self), _BLOCK_BYTES)  # type: ignore[return-value]

    def read_range(self, offset: int, size: int) -> bytes:
        """These bytes, or those up to the end; safe in several threads.

        Raises:
            FileNotFoundError: nothing is there.
            OSError: it cannot be read.
        """
        if size <= 0:
            return b""
        system, path = filesystem(self.url)
        if (inner := arrow_of(system)) is not None:  # with two requests, as fsspec's own
            with inner.open_input_file(path) as stream:
                return stream.read_at(size, offset)
        found = system.cat_file(path, start=offset, end=offset + size)
        assert isinstance(found, bytes), "was opened for reading bytes"
        return found


class _Stream(io.RawIOBase):
    """Reads what is asked for, with a request each time."""

    def __init__(self, path: RemotePath) -> None:
        self._path, self._at = path, 0
        self._end = path.stat().st_size

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = max(0, offset + (0, self._at, self._end)[whence])
        return self._at

    def tell(self) -> int:
        return self._at

    def readall(self) -> bytes:
        data = self._path.read_range(self._at, self._end - self._at)
        self._at += len(data)
        return data

    def readinto(self, buffer: Any) -> int:
        data = self._path.read_range(self._at, min(len(buffer), self._end - self._at))
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


def _status(info: dict[str, Any]) -> Status:
    if info.get("type") == "directory":
        raise FileNotFoundError(info["name"])
    tag = info.get("ETag") or info.get("etag")
    changed = next(
        filter(None, map(info.get, ("mtime", "LastModified", "updated", "mtime_ns"))), ""
    )
    size = int(info.get("size") or 0)
    return Status(size, str(tag).strip('"') if tag else f"{size}-{changed}".replace(" ", "T"))


def found(key: str, pattern: str) -> list[RemotePath]:
    """The files that a URL names: one, all below a prefix, or the matches of a glob, by name; [] for none.

    A listing takes a request for every thousand files. What is hidden, or below something hidden, is left out.

    Raises:
        UserError: as `check`, or the place cannot be listed.
    """
    check(key, pattern)
    system, path = filesystem(pattern)
    path = path.rstrip("/")
    magic = _MAGIC.search(path)
    base = path[: magic.start()].rpartition("/")[0] if magic else path
    deep = not magic or "/" in path[len(base) + 1 :]
    try:
        infos = _listed(system, base, deep=deep)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise UserError(
            f"{key}={shown(pattern)} cannot be listed ({error}); see that the credentials in the environment may read it"
        ) from error
    from fsspec.utils import glob_translate

    wanted = re.compile(glob_translate(path.lstrip("/"))) if magic else None
    scheme, start = pattern.partition("://")[0], len(base.lstrip("/"))
    paths = []
    for info in infos:
        name = info["name"].lstrip("/")
        is_hidden = any(part.startswith(".") for part in name[start:].split("/")[1:])
        if not is_hidden and (wanted is None or wanted.match(name)):
            paths.append(RemotePath(_url_of(scheme, info["name"]), _status(info)))
    return sorted(paths)


def _listed(system: AbstractFileSystem, path: str, *, deep: bool) -> list[dict[str, Any]]:
    """The file at a path, or the files in a folder, and if ``deep`` in its folders.

    fsspec's own ``find`` and ``glob`` leave out folders that cannot be listed, without a word.
    """
    about = system.info(path)
    if about["type"] == "file":
        return [about]
    if (inner := arrow_of(system)) is not None:
        from pyarrow import fs

        found = inner.get_file_info(fs.FileSelector(about["name"], recursive=deep))
        return [
            {"name": each.path, "size": each.size, "mtime": each.mtime}
            for each in found
            if each.type == fs.FileType.File
        ]
    files, folders = [], [path]
    while folders:
        for info in system.ls(folders.pop(), detail=True, refresh=True):
            if info["type"] != "directory":
                files.append(info)
            elif deep:
                folders.append(info["name"])
    return files


def _url_of(scheme: str, name: str) -> str:
    return (
        name if "://" in name else f"{scheme}://{name.lstrip('/') if scheme != 'memory' else name}"
    )


def relative(paths: list[RemotePath], base: str) -> Iterator[str]:
    """The paths behind ``base`` and a slash; the name alone of what is elsewhere."""
    start = base.rstrip("/") + "/"
    for path in paths:
        yield path.url.removeprefix(start) if path.url.startswith(start) else path.name
