"""Files that lie elsewhere, by their URL: ``s3://bucket/a.parquet`` and whatever else fsspec opens.

S3 is read by the client that is part of pyarrow; other schemes by the package that fsspec names, such as
gcsfs for ``gs``. Credentials come from where these look for them, the environment above all, and are never part
of a URL, because URLs are written into configurations, ledgers and reports. Of S3's environment

- ``AWS_ACCESS_KEY_ID``, ``AWS_SECRET_ACCESS_KEY``, ``AWS_SESSION_TOKEN``, ``AWS_PROFILE``,
- ``AWS_REGION``, else ``AWS_DEFAULT_REGION``,
- ``AWS_ENDPOINT_URL_S3``, else ``AWS_ENDPOINT_URL`` or ``FSSPEC_S3_ENDPOINT_URL``: another server than Amazon's,
- ``FSSPEC_S3_ANON=true``: no credentials, for public buckets

count. A request that fails is repeated by the client.
"""

from __future__ import annotations

import io
import os
import posixpath
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import lru_cache
from typing import IO, TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

from curate.run.schema import UserError

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)", re.DOTALL)
_MAGIC = re.compile(r"[*?\[]")
_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "FSSPEC_S3_ENDPOINT_URL")
_REGIONS = ("AWS_REGION", "AWS_DEFAULT_REGION")
_ANONYMOUS = "FSSPEC_S3_ANON"
_BLOCK_BYTES = 4 * 2**20  # of one request, where a file is read from its beginning on


class Unreachable(OSError):
    """A file elsewhere cannot be read now, and another attempt may succeed; says what to type once none did."""


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


def is_remote(place: object) -> bool:
    """Whether a place is a URL and no path.

    >>> is_remote("s3://bucket/a.tar"), is_remote("data/a.tar")
    (True, False)
    """
    return isinstance(place, str) and _URL.match(place) is not None


def refuse_local_only(key: str, place: object, instead: str) -> None:
    """Refuse a URL where only a path on this machine will do; ``instead`` says what to type."""
    if is_remote(place):
        raise UserError(
            f"{key}={shown(str(place))} is not on this machine, and {key} has to be: {instead}"
        )


def shown(url: str) -> str:
    """A URL without a user, a password or a query, which may be secret."""
    scheme, _, rest = url.partition("://")
    authority, slash, path = rest.partition("/")
    return f"{scheme}://{authority.rpartition('@')[2]}{slash}{path.partition('?')[0] if '=' in path else path}"


def check(key: str, url: str) -> None:
    """Refuse a URL that cannot be opened, before anything is asked for.

    Raises:
        UserError: it holds a user or a password, or nothing installed opens its scheme; says what to type.
    """
    import fsspec
    from fsspec.registry import known_implementations

    found = _URL.match(url)
    scheme = found[1] if found else ""
    if "@" in (urlsplit(url).netloc if scheme else "") or "=" in url.partition("?")[2]:
        raise UserError(
            f"{key}={shown(url)}: a URL here holds no user, password or signature, since it is written into "
            "the configuration and the report. Give credentials by the environment, such as AWS_PROFILE or "
            f"AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and type {key}={shown(url)}"
        )
    if scheme in ("file", "local"):
        raise UserError(f"{key}={url}: type the path alone, {key}={url.partition('://')[2]}")
    if scheme in ("s3", "s3a"):
        return
    if scheme not in known_implementations and scheme not in fsspec.available_protocols():
        raise UserError(
            f"{key}={shown(url)}: {scheme}:// is unknown; accepted: s3://, and the schemes of fsspec, such as gs, az "
            f"and hf. Type {key}=s3://BUCKET/PREFIX"
        )
    try:
        fsspec.get_filesystem_class(scheme)
    except ImportError as error:
        raise UserError(f"{key}={shown(url)}: {error}; install what it names with pip") from error


def check_writable(key: str, url: str) -> None:
    """As ``check``, of a URL that is written to.

    Raises:
        UserError: as there; or it is a path, or nothing can be written by its scheme.
    """
    scheme = found[1] if (found := _URL.match(url)) else ""
    if scheme in ("file", "local"):
        raise UserError(
            f"{key}={url} names a folder of this machine, and {key} copies to an object store; name the folder "
            "of the run itself by run.root=FOLDER"
        )
    if scheme in ("http", "https"):
        raise UserError(
            f"{key}={shown(url)}: nothing can be written by {scheme}; type {key}=s3://BUCKET/PREFIX, with "
            f"{_ENDPOINTS[0]} for another server than Amazon's"
        )
    check(key, url)


def public_environment() -> dict[str, str]:
    """The variables that say where S3 is and who asks, as far as they are set and hold no secret."""
    names = (*_ENDPOINTS, *_REGIONS, _ANONYMOUS, "AWS_PROFILE")
    return {name: os.environ[name] for name in names if os.environ.get(name)}


def filesystem(url: str) -> tuple[AbstractFileSystem, str]:
    """The file system of a URL, opened once in a process, and the path there."""
    found = _URL.match(url)
    assert found is not None, "a path is opened by pathlib"
    scheme, rest = found.groups()
    if scheme in ("s3", "s3a"):
        return _s3(rest.partition("/")[0], os.getpid()), rest
    import fsspec

    system, path = fsspec.core.url_to_fs(url)
    return system, path


@contextmanager
def written(url: str) -> Iterator[IO[bytes]]:
    """A file of a URL, opened for writing; it is there, whole, once the block ends, and not if it raises.

    Raises:
        OSError: it cannot be written.
    """
    system, path = filesystem(url)
    stream = cast("IO[bytes]", system.open(path, "wb"))
    try:
        yield stream
        stream.close()
    except BaseException:
        # No client can be told to leave an upload: closing it, as the client does at the latest when it forgets the
        # file, gives what was written so far the file's name.
        with suppress(Exception):
            stream.close()
        with suppress(Exception):
            remove(url)
        raise


def remove(url: str) -> None:
    """Delete a file of a URL, if it is there.

    Raises:
        OSError: it cannot be deleted.
    """
    system, path = filesystem(url)
    if system.exists(path):
        system.rm_file(path)


@lru_cache(maxsize=16)
def _s3(bucket: str, process: int) -> AbstractFileSystem:
    """S3, for one bucket: each has a region."""
    from fsspec.implementations.arrow import ArrowFSWrapper
    from pyarrow import fs

    env = os.environ
    endpoint = next(filter(None, map(env.get, _ENDPOINTS)), "")
    options: dict[str, Any] = {"anonymous": env.get(_ANONYMOUS, "").lower() == "true"}
    region = next(filter(None, map(env.get, _REGIONS)), None)
    if endpoint:
        scheme, _, host = endpoint.rpartition("://")
        options |= {"scheme": scheme or "https", "endpoint_override": host.rstrip("/")}
        region = region or "us-east-1"
    try:
        options["region"] = region or fs.resolve_s3_region(bucket)
    except OSError as error:
        raise UserError(
            f"s3://{bucket}: Amazon S3 does not say where this bucket is ({error}); set AWS_REGION, or "
            "AWS_ENDPOINT_URL_S3 for another server"
        ) from error
    return ArrowFSWrapper(
        fs.S3FileSystem(**options), skip_instance_cache=True, use_listings_cache=False
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
            f"{key}={pattern} cannot be listed ({error}); see that the credentials in the environment may read it"
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


def arrow_of(system: AbstractFileSystem) -> Any:
    """Arrow's file system, if that is what fsspec's stands for."""
    from fsspec.implementations.arrow import ArrowFSWrapper

    return system.fs if isinstance(system, ArrowFSWrapper) else None


def _url_of(scheme: str, name: str) -> str:
    return (
        name if "://" in name else f"{scheme}://{name.lstrip('/') if scheme != 'memory' else name}"
    )


def relative(paths: list[RemotePath], base: str) -> Iterator[str]:
    """The paths behind ``base`` and a slash; the name alone of what is elsewhere."""
    start = base.rstrip("/") + "/"
    for path in paths:
        yield path.url.removeprefix(start) if path.url.startswith(start) else path.name


def base_of(pattern: str) -> str:
    """The part of a URL ahead of its first special sign, up to a slash.

    >>> base_of("s3://b/a/*.tar")
    's3://b/a'
    """
    magic = re.search(r"[*?\[{]", pattern)
    return pattern[: magic.start()].rpartition("/")[0] if magic else pattern.rstrip("/")
