"""Bytes that are made to take long before a header is found in them, which Pillow reads one by one."""

from __future__ import annotations

import re

_EOI, _SOS = 0xD9, 0xDA
_WITHOUT_LENGTH = (0x01, 0xD8)  # TEM and SOI
_MARKER = re.compile(rb"\xff([^\x00\xff\xd0-\xd7])", re.DOTALL)  # none that the pixels' bytes have
_PIECE = 1 << 20  # bytes that are searched at one time, between which other threads run

_MOST_PARTS = 10_000
"""Segments or chunks before the pixels; even with large notes there are a few hundred."""

_MOST_BETWEEN = 4096
"""Bytes outside of all segments of a JPEG."""

_HEAD, _HEAD_OF_NO_PICTURE = 1 << 18, 1 << 15
_JPEG, _PNG = b"\xff\xd8", b"\x89PNG\r\n\x1a\n"
_AHEAD = (b"GIF8", b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51")  # GIF and JPEG 2000
_ANYWHERE = (b"II", b"MM", b"RIFF")  # TIFF and WebP, whose tables are read at one time


def readable(body: bytes) -> bytes | None:
    """As much of a body as its header may take; None if that would be more than any picture has."""
    if body.startswith(_JPEG):
        return body if _is_jpeg_soon(body) else None
    if body.startswith(_PNG):
        return body if _is_png_soon(body) else None
    if body.startswith(_AHEAD):
        return body[:_HEAD]
    if body.startswith(_ANYWHERE) or body[4:8] == b"ftyp":
        return body
    return body[:_HEAD_OF_NO_PICTURE]


def has_end_of_jpeg(body: bytes) -> bool:
    """Whether the end comes after all segments (ITU T.81, B.1.1), not inside one, as that of a thumbnail does."""
    place = 2
    for _ in range(_MOST_PARTS):
        marker, place = _next_marker(body, place)
        if marker == _EOI:
            return True
        if not marker:
            return False
        place = _behind(body, marker, place)
    return False


def _is_jpeg_soon(body: bytes) -> bool:
    """Whether the pixels, or the end of the body, come after a number of segments that is not too large."""
    place, between = 2, 0
    for _ in range(_MOST_PARTS):
        found = _MARKER.search(body, place, place + _MOST_BETWEEN + 2)
        between += (found.start() if found else len(body)) - place
        if between > _MOST_BETWEEN:
            return False
        if found is None or found[1][0] in (_EOI, _SOS):
            return True
        place = _behind(body, found[1][0], found.end())
    return False


def _is_png_soon(body: bytes) -> bool:
    place = len(_PNG)
    for _ in range(_MOST_PARTS):
        if place >= len(body) or body[place + 4 : place + 8] == b"IDAT":
            return True
        place += int.from_bytes(body[place : place + 4], "big") + 12
    return False


def _next_marker(body: bytes, place: int) -> tuple[int, int]:
    """The next marker's second byte and the place behind it; 0 and the end if there is none."""
    for start in range(place, len(body), _PIECE):
        if found := _MARKER.search(body, start, start + _PIECE + 1):
            return found[1][0], found.end()
    return 0, len(body)


def _behind(body: bytes, marker: int, place: int) -> int:
    """The place behind a segment."""
    return (
        place
        if marker in _WITHOUT_LENGTH
        else place + int.from_bytes(body[place : place + 2], "big")
    )
