"""Pictures that are drawn by their number, and the parts of a server's answers."""

import io
import struct
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from PIL import Image

FORMATS = {"jpg": "JPEG", "png": "PNG", "gif": "GIF", "webp": "WEBP"}
MIME = {"jpg": "image/jpeg", "png": "image/png", "gif": "image/gif", "webp": "image/webp"}
_SIDE = 160


@lru_cache(maxsize=1024)
def drawn(look: int, extension: str) -> bytes:
    """A smooth random pattern: pictures of different ``look`` are no near duplicates of one another."""
    coarse = np.random.default_rng(look).integers(0, 256, (6, 6, 3), np.uint8)
    picture = Image.fromarray(coarse).resize((_SIDE, _SIDE), Image.Resampling.BICUBIC)
    stream = io.BytesIO()
    picture.save(stream, FORMATS[extension])
    return stream.getvalue()


def picture(number: int, extension: str = "jpg", kb: float = 0, looks: int | None = None) -> bytes:
    """The picture of ``/ok/NUMBER.EXTENSION``; a JPEG is filled with comments up to ``kb`` x 1000 bytes.

    With ``looks`` only so many different patterns are drawn, which costs the server less; the bytes of two
    JPEGs still differ.
    """
    body = drawn(number % looks if looks else number, extension)
    if extension != "jpg":
        return body
    comments = _comment(b"number %d" % number)
    missing = int(kb * 1000) - len(body) - len(comments)
    while missing > 4:
        comments += (filler := _comment(b"." * min(missing - 4, 60_000)))
        missing -= len(filler)
    return body[:2] + comments + body[2:]


def _comment(text: bytes) -> bytes:
    return b"\xff\xfe" + struct.pack(">H", len(text) + 2) + text


class Asked(NamedTuple):
    """One request: its path without the query, the query, the headers in lower case, how often before."""

    path: str
    query: dict[str, str]
    headers: dict[str, str]
    before: int

    @property
    def number(self) -> int:
        digits = "".join(filter(str.isdigit, self.path.rpartition("/")[2]))
        return int(digits or 0)


def answer(status: int, body: bytes = b"", *headers: str, length: int | None = None) -> bytes:
    """A whole answer of HTTP/1.1, with ``length`` as a false Content-Length."""
    lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body) if length is None else length}"]
    return "\r\n".join([*lines, *headers, "", ""]).encode("latin-1") + body


KINDS: dict[str, Callable] = {}
"""First part of the path -> what answers it."""


def kind(name: str):
    def register(function):
        KINDS[name] = function
        return function

    return register
