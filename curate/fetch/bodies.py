"""The body of an answer, counted as it comes and as it is unpacked."""

from __future__ import annotations

import asyncio
import zlib

from aiohttp import ClientResponse

from curate.fetch.answer import Answer
from curate.fetch.room import EACH, Part

_GZIP = 16 + zlib.MAX_WBITS  # zlib's names of the formats
_ZLIB = zlib.MAX_WBITS
_RAW = -zlib.MAX_WBITS

_PIECE = 1 << 16  # bytes that are unpacked at one time: of what is left of them zlib makes a copy
_MOST_PARTS = 1000
"""Of one gzip body: each may be of 20 bytes and hold nothing, and starts an unpacking of its own."""


class BadBody(Exception):
    """A body that is not taken; ``answer`` says why."""

    def __init__(self, state: str, error: str) -> None:
        super().__init__(error)
        self.answer = Answer(state, error)


async def read(
    response: ClientResponse, max_bytes: int, part: Part | None = None, *, cut: bool = False
) -> bytes:
    """The body, unpacked.

    No more than ``max_bytes`` are kept at any time, packed or unpacked, whatever the headers say.

    Args:
        response: whose body has not been read.
        max_bytes: of the body.
        part: of the room for all bodies, which a large one waits for; None for a small ``max_bytes``.
        cut: keep the first ``max_bytes`` of a larger body.

    Raises:
        BadBody: it is larger, or is packed in a way that was not asked for or that is broken.
    """
    encoding = response.headers.get("Content-Encoding", "").strip().lower()
    if encoding not in ("", "identity", "gzip", "x-gzip", "deflate"):
        raise BadBody("bad_answer", "a Content-Encoding that was not asked for")
    if (response.content_length or 0) > max_bytes and not cut:
        raise BadBody("too_large", "")
    is_packed = encoding not in ("", "identity")
    needed = (response.content_length or max_bytes) + (max_bytes if is_packed else 0)
    body = await _counted(response, max_bytes, part, needed, cut)
    if not is_packed or not body:
        return body
    most = max_bytes if part is None else min(max_bytes, EACH)
    try:
        return await asyncio.to_thread(_unpacked, body, encoding, most, cut)  # up to 0.1 s
    except BadBody as error:
        if part is None or error.answer.state != "too_large" or most == max_bytes:
            raise
    await part.need(needed)
    return await asyncio.to_thread(_unpacked, body, encoding, max_bytes, cut)


async def _counted(
    response: ClientResponse, max_bytes: int, part: Part | None, needed: int, cut: bool
) -> bytes:
    chunks, count = [], 0
    while chunk := await response.content.readany():
        chunks.append(chunk)
        count += len(chunk)
        if count > max_bytes:
            if not cut:
                raise BadBody("too_large", "")
            break
        if count > EACH and part is not None:
            await part.need(needed)
    return (chunks[0] if len(chunks) == 1 else b"".join(chunks))[:max_bytes]


def _unpacked(body: bytes, encoding: str, max_bytes: int, cut: bool) -> bytes:
    """Unpack by parts of zlib's format; gzip may hold several one after another (RFC 1952, 2.2)."""
    kind, view, parts, count = _format(body, encoding), memoryview(body), [], 0
    unpacker, is_begun, whole = zlib.decompressobj(kind), False, 0
    while view:
        piece = view[:_PIECE]
        try:
            part = unpacker.decompress(piece, max_bytes - count + 1)
        except zlib.error as error:
            if (
                whole and not is_begun
            ):  # something else behind the last part, as gzip itself ignores it
                break
            raise BadBody("bad_answer", "a compressed body that is broken") from error
        parts.append(part)
        count += len(part)
        if count > max_bytes:
            if cut:
                break
            raise BadBody("too_large", "")
        view = view[len(piece) - len(unpacker.unused_data) :]
        is_begun = not unpacker.eof
        if unpacker.eof:
            whole += 1
            if encoding == "deflate":
                break
            if whole > _MOST_PARTS:
                raise BadBody("bad_answer", "a compressed body of too many parts")
            unpacker = zlib.decompressobj(kind)
    if is_begun and not cut:
        raise BadBody("bad_answer", "a compressed body that is cut short")
    return b"".join(parts)[:max_bytes]


def _format(body: bytes, encoding: str) -> int:
    """For ``deflate`` many servers leave out zlib's header (RFC 1950, 2.2), and its checksum says which it is."""
    if encoding != "deflate":
        return _GZIP
    has_header = body[0] & 15 == 8 and int.from_bytes(body[:2], "big") % 31 == 0
    return _ZLIB if has_header else _RAW
