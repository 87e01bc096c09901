"""URLs of places elsewhere, ``s3://bucket/prefix`` and whatever else fsspec opens, and the file systems behind them.

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

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from typing import IO, TYPE_CHECKING, Any, cast

from curate.run.schema import UserError

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)", re.DOTALL)
_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "FSSPEC_S3_ENDPOINT_URL")
_REGIONS = ("AWS_REGION", "AWS_DEFAULT_REGION")
_ANONYMOUS = "FSSPEC_S3_ANON"


class Unreachable(OSError):
    """A file elsewhere cannot be read now, and another attempt may succeed; says what to type once none did."""


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
    if holds_login(url):
        rest = rest.rpartition("@")[2]
    authority, slash, path = rest.partition("/")
    if holds_login(f"{scheme}://{rest}"):  # KEY:SECRET without a place behind it
        authority = authority.partition(":")[0]
    return f"{scheme}://{authority}{slash}{path.partition('?')[0] if '=' in path else path}"


def holds_login(url: str) -> bool:
    """Whether a URL holds a user or a password, which may have a ``/`` in it, as secret keys of S3 have.

    >>> holds_login("s3://user:pa/ss@bucket/a"), holds_login("http://user@host"), holds_login("s3://key:secret")
    (True, True, True)
    >>> holds_login("s3://bucket/a@2x.png"), holds_login("http://host:9000/a@2x"), holds_login("http://[::1]:9000/a")
    (False, False, False)
    """
    found = _URL.match(url)
    authority = found[2].partition("/")[0] if found else ""
    behind = authority.rpartition("]")[2]  # an address of IPv6 has colons of its own
    return "@" in authority or bool(behind.partition(":")[2].strip("0123456789"))


def check(key: str, url: str) -> None:
    """Refuse a URL that cannot be opened, before anything is asked for.

    Raises:
        UserError: it holds a user or a password, or nothing installed opens its scheme; says what to type.
    """
    import fsspec
    from fsspec.registry import known_implementations

    found = _URL.match(url)
    scheme = found[1] if found else ""
    if holds_login(url) or "=" in url.partition("?")[2]:
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
    """The variables that say where S3 is and who asks, as far as they are set."""
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
        # No client has a way to drop an upload: closing it, as the client does at the latest when it forgets the
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


def arrow_of(system: AbstractFileSystem) -> Any:
    """Arrow's file system, if that is what fsspec's stands for."""
    from fsspec.implementations.arrow import ArrowFSWrapper

    return system.fs if isinstance(system, ArrowFSWrapper) else None


def base_of(pattern: str) -> str:
    """The part of a URL ahead of its first special sign, up to a slash.

    >>> base_of("s3://b/a/*.tar")
    's3://b/a'
    """
    magic = re.search(r"[*?\[{]", pattern)
    return pattern[: magic.start()].rpartition("/")[0] if magic else pattern.rstrip("/")
