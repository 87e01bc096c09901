"""A PNG reduced to what decides its pixels, for files whose notes or profile Pillow refuses."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass

SIGNATURE = b"\x89PNG\r\n\x1a\n"
MOST_PROFILE_BYTES = 1 << 24  # of a colour profile when unpacked; a JPEG's can hardly be longer

# Bit of a kind's first letter, a small one: a reader need not understand the chunk.
_ANCILLARY = 0x20
_USED = (b"tRNS", b"eXIf")  # ancillary, but looked at: transparency, and which side is up


@dataclass(frozen=True, slots=True)
class _Chunk:
    """A part of the file: its kind, what it holds, and all of it with length and checksum."""

    kind: bytes
    body: bytes
    whole: bytes

    @property
    def is_needed(self) -> bool:
        """Whether no reader can do without it."""
        return not self.kind or not self.kind[0] & _ANCILLARY

    @property
    def is_sound(self) -> bool:
        """Whether its checksum is right."""
        return self.whole[-4:] == zlib.crc32(self.kind + self.body).to_bytes(4, "big")


def essential(data: bytes) -> tuple[bytes, bytes | None]:
    """The PNG without the chunks that do not decide its pixels, and its colour profile.

    Pillow refuses a picture for a note of more than a megabyte, for notes of 64 megabytes together, for
    a profile of more than a megabyte, and for a wrong checksum in any of them; browsers show it. Chunks
    that a reader has to understand are left as they are, so that damage in them is found.

    Returns:
        The bytes, and the unpacked profile, None where there is none, it is damaged, or it is longer
        than ``MOST_PROFILE_BYTES``. Data that is no PNG is returned as it is.
    """
    if not data.startswith(SIGNATURE):
        return data, None
    kept, profile = [SIGNATURE], None
    for chunk in _chunks(data):
        if chunk.is_needed or (chunk.kind in _USED and chunk.is_sound):
            kept.append(chunk.whole)
        elif chunk.kind == b"iCCP" and chunk.is_sound:
            profile = _unpacked(chunk.body)
    return b"".join(kept), profile


def has_notes_behind_the_pixels(data: bytes) -> bool:
    """Whether Pillow meets chunks that it may refuse only after it has opened the PNG."""
    if not data.startswith(SIGNATURE):
        return False
    kinds = [chunk.kind for chunk in _chunks(data)]
    behind = kinds[kinds.index(b"IDAT") :] if b"IDAT" in kinds else []
    return not {*behind} <= {b"IDAT", b"IEND"}


def chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Kind and content of each chunk of a PNG; the last may be cut off."""
    return ((chunk.kind, chunk.body) for chunk in _chunks(data))


def _chunks(data: bytes) -> Iterator[_Chunk]:
    """The chunks in order; the last may be cut off."""
    start = len(SIGNATURE)
    while start < len(data):
        end = start + 12 + int.from_bytes(data[start : start + 4], "big")
        yield _Chunk(data[start + 4 : start + 8], data[start + 8 : end - 4], data[start:end])
        start = end


def _unpacked(body: bytes) -> bytes | None:
    """The profile in a chunk of a name, a zero, the method of compression, which is 0, and the data."""
    _, _, packed = body.partition(b"\0")
    if packed[:1] != b"\0":
        return None
    unpacking = zlib.decompressobj()
    try:
        profile = unpacking.decompress(packed[1:], MOST_PROFILE_BYTES)
    except zlib.error:
        return None
    return None if unpacking.unconsumed_tail else profile
