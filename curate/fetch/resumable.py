"""Fetch one large file so that a broken connection or a killed process costs next to nothing.

What is there is asked for no more: ``Range`` with ``If-Range`` (RFC 9110, sections 13.1.5 and 14.2) goes on where
the part ends, if the server still has the same file by its strong ETag or its date; else from the start.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import IO, Any

import aiohttp

from curate.readers.archives import Archive
from curate.run.files import naming
from curate.run.progress import Bar, count_done
from curate.run.schema import UserError

TRIES = 6  # in a row that bring no byte
STALL_S = 60.0
CONNECT_S = 30.0

_BLOCK_BYTES = 1 << 18
_LONGEST_WAIT_S = 30.0
_FOREVER = 7 * 24 * 3600.0  # more than the largest archive takes at 40 kB/s
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")


class _Broken(Exception):
    """Something that may pass; what has come so far counts."""


async def fetch(
    archive: Archive,
    path: Path,
    agent: str,
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
) -> None:
    """Fetch ``archive`` to ``path``, which appears when it is complete; until then there is ``path.part``.

    Args:
        archive: what to fetch.
        path: where to.
        agent: who asks, for the User-Agent.
        sleep: waits between attempts.

    Raises:
        UserError: the server has another file, or does not answer for long.
        OSError: the disk is full.
    """
    part, note = path.with_name(f"{path.name}.part"), path.with_name(f"{path.name}.json")
    timeout = aiohttp.ClientTimeout(total=_FOREVER, sock_connect=CONNECT_S, sock_read=STALL_S)
    with Bar(total=archive.bytes // 10**6, desc=f"fetch {archive.name}", unit="MB") as bar:
        count_done(bar, _size(part) // 10**6)
        async with aiohttp.ClientSession(
            timeout=timeout, auto_decompress=False, headers={"User-Agent": agent}
        ) as session:
            idle, at_first = 0, _size(part)
            while _size(part) < archive.bytes:
                before = _size(part)
                try:
                    await _attempt(session, archive, part, note, bar)
                except (_Broken, aiohttp.ClientError, TimeoutError, ConnectionError) as error:
                    idle = 0 if _size(part) > before else idle + 1
                    if (
                        isinstance(error, aiohttp.ClientConnectorDNSError)
                        and _size(part) == at_first
                    ):
                        raise UserError(
                            f"{archive.url}: there is no host of this name, or no network ({_reason(error)}). What "
                            "has come before is kept; with a network, the same command goes on there"
                        ) from error
                    if idle >= TRIES:
                        raise UserError(
                            f"{archive.url} did not answer {TRIES} times in a row "
                            f"({_reason(error)}); what has come is kept, and the same command goes on there"
                        ) from error
                    wait_s = min(2.0**idle, _LONGEST_WAIT_S)
                    if idle:
                        Bar.write(
                            f"{archive.name}: no answer ({_reason(error)}); asked again in {wait_s:.0f} s",
                            file=sys.stderr,
                        )
                    await sleep(wait_s)
    part.replace(path)
    note.unlink(missing_ok=True)


async def _attempt(
    session: aiohttp.ClientSession, archive: Archive, part: Path, note: Path, bar: Bar
) -> None:
    """One request, and its body appended to ``part``."""
    start, validator = _size(part), _noted(note, archive)
    headers = {"Accept-Encoding": "identity"}
    if start and validator:
        headers |= {"Range": f"bytes={start}-", "If-Range": validator}
    async with session.get(archive.url, headers=headers, allow_redirects=False) as response:
        if response.status == 416:  # there is no such part, so it is another file
            _forget(part, note)
        _check_status(response, archive)
        goes_on = response.status == 206 and _continues(response, archive, start, validator)
        if response.status == 206 and not goes_on:
            _forget(part, note)
            raise _Broken("another part than was asked for")
        if not goes_on:
            _check_length(response, archive)
            if start:
                Bar.write(
                    f"{archive.name} is fetched from the start: the server has changed it, or sends no parts"
                )
            _forget(part, note)
            bar.reset(total=archive.bytes // 10**6)
            note.write_text(json.dumps({"url": archive.url, "validator": _validator(response)}))
        with naming(part), part.open("ab") as stream:
            await _append(response, archive, stream, bar)
    if _size(part) < archive.bytes:
        raise _Broken("the answer ended early")


async def _append(
    response: aiohttp.ClientResponse, archive: Archive, stream: IO[bytes], bar: Bar
) -> None:
    async for block in response.content.iter_chunked(_BLOCK_BYTES):
        left = archive.bytes - stream.tell()
        if len(block) > left:
            raise UserError(_other_size(archive, "more than that"))
        stream.write(block)
        bar.update(stream.tell() // 10**6 - bar.n)


def _check_status(response: aiohttp.ClientResponse, archive: Archive) -> None:
    status = response.status
    if status in (200, 206):
        if response.headers.get("Content-Encoding", "identity").lower() != "identity":
            raise UserError(f"{archive.url} is sent packed, which was not asked for")
        return
    if status in (408, 416, 425, 429) or status >= 500:
        raise _Broken(f"status {status}")
    moved = response.headers.get("Location")
    raise UserError(
        f"{archive.url} is not there any more (status {status}{f', it points to {moved!r}' if moved else ''}); "
        "fetch the data set yourself, and type dataset.root=FOLDER"
    )


def _check_length(response: aiohttp.ClientResponse, archive: Archive) -> None:
    length = response.content_length
    if length is not None and length != archive.bytes:
        raise UserError(_other_size(archive, f"{length:,}"))


def _other_size(archive: Archive, said: str) -> str:
    return (
        f"{archive.url} has {archive.bytes:,} bytes as published, and the server sends {said}; fetch the data "
        "set yourself, and type dataset.root=FOLDER"
    )


def _continues(
    response: aiohttp.ClientResponse, archive: Archive, start: int, validator: str
) -> bool:
    """Whether a partial answer is the rest of the same file."""
    found = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
    if found is None or not validator or int(found[1]) != start:
        return False
    if int(found[3]) != archive.bytes:
        raise UserError(_other_size(archive, f"{int(found[3]):,}"))
    return _validator(response) in ("", validator)


def _validator(response: aiohttp.ClientResponse) -> str:
    """A strong ETag, or the date of the last change; "" where the server names neither."""
    tag = response.headers.get("ETag", "")
    if tag and not tag.startswith("W/"):
        return tag
    return response.headers.get("Last-Modified", "")


def _noted(note: Path, archive: Archive) -> str:
    """What the part's server said of the file; "" where nothing is known, and the part is of no use."""
    try:
        content: Any = json.loads(note.read_text())
        return str(content["validator"]) if content["url"] == archive.url else ""
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _forget(part: Path, note: Path) -> None:
    part.unlink(missing_ok=True)
    note.unlink(missing_ok=True)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _reason(error: BaseException) -> str:
    return str(error) or type(error).__name__
