"""The XMP packets of a picture's file, and the values of some of their properties.

XMP part 3 (Adobe, 2020; ISO 16684-1 for the format itself) says where a file holds them: a JPEG in APP1
segments, a PNG in a text chunk, a WebP in a chunk, TIFF in tag 700, AVIF and HEIC in an item.
"""

from __future__ import annotations

import io
import re
import zlib
from collections import defaultdict
from collections.abc import Collection, Iterator
from itertools import islice
from typing import Any
from xml.parsers import expat

from curate.measures import heif, libtiff, png

MOST_BYTES = 1 << 21  # of the packets of one file: what has more holds pictures or a history
MOST_PACKETS = 16  # that are looked at; a file has one, a JPEG also what extends it
MOST_DEPTH = 100  # of elements; the properties of IPTC and PLUS lie below ten others

Name = tuple[str, str]
"""Namespace and local name of a property."""

_RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
_BLOCK_BYTES = 1 << 16  # that the parser gets at once
_JPEG, _MAIN, _EXTENDED = (
    b"\xff\xd8",
    b"http://ns.adobe.com/xap/1.0/\0",
    b"http://ns.adobe.com/xmp/extension/\0",
)
_WIDE = (b"\xff\xfe", b"\xfe\xff", b"<\0", b"\0<")  # UTF-16 with its byte-order mark, and without
_KEYWORD = b"XML:com.adobe.xmp\0"  # of the chunk iTXt
_WITHOUT_LENGTH = {0x01, *range(0xD0, 0xD8)}  # JPEG's markers that no segment follows


def packets(data: bytes) -> list[bytes]:
    """The packets of a file, which has one as a rule; none where it has none, or is damaged in front of it."""
    if data.startswith(_JPEG):
        found = _of_jpeg(data)
    elif data.startswith(png.SIGNATURE):
        found = _of_png(data)
    elif data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        found = _of_webp(data)
    else:
        found = _of_others(data)
    kept, left = [], MOST_BYTES
    for packet in islice(found, MOST_PACKETS):
        kept.append(_unpacked(packet, left) if isinstance(packet, _Packed) else packet[:left])
        left -= len(kept[-1])
        if left <= 0:
            break
    return [packet for packet in kept if packet]


def values(packet: bytes, names: Collection[Name]) -> dict[Name, list[str]]:
    """The values of properties, in the order in which they are found.

    Each of the three ways to write one counts: an element, an attribute of ``rdf:Description``, and an element with
    ``rdf:resource``; of a list, each entry. A packet has no values where it is no sound XML, is deeper than
    ``MOST_DEPTH``, or declares a document type (which no XMP does, and by which a file can grow without bounds or
    name other files).
    """
    reading = _Reading(names)
    # The encoding that a packet declares does not count: Python would look up any codec of that name.
    is_wide = packet[:2] in _WIDE
    parser = expat.ParserCreate("utf-16" if is_wide else "utf-8", " ")
    parser.buffer_text = True
    parser.StartElementHandler = reading.start
    parser.EndElementHandler = reading.end
    parser.CharacterDataHandler = reading.text
    parser.StartDoctypeDeclHandler = _refuse
    if not is_wide:  # some writers pad a packet; in UTF-16 a zero may belong to a letter
        packet = packet.strip(b"\0 \t\r\n")
    try:
        # In blocks: a parser stops at what a handler raises only when it has gone through all it was given.
        for start in range(0, len(packet), _BLOCK_BYTES):
            parser.Parse(packet[start : start + _BLOCK_BYTES])
        parser.Parse(b"", True)
    except Exception:  # the bytes may be made to break it
        return {}
    return reading.found


class _RefusedError(Exception):
    pass


def _refuse(*_: Any) -> None:
    raise _RefusedError


class _Reading:
    """Collects the values while the parser goes through a packet."""

    def __init__(self, names: Collection[Name]) -> None:
        self._names = {" ".join(name): name for name in names}
        self._open: list[tuple[Name | None, list[str]]] = []
        self.found: dict[Name, list[str]] = defaultdict(list)

    def start(self, element: str, attributes: dict[str, str]) -> None:
        if len(self._open) >= MOST_DEPTH:
            raise _RefusedError
        for attribute, value in attributes.items():
            if name := self._names.get(attribute):
                self._add(name, value)
        name = self._names.get(element)
        if name and (resource := attributes.get(f"{_RDF} resource")):
            self._add(name, resource)
        inherited = self._open[-1][0] if self._open else None
        self._open.append((name or inherited, []))

    def text(self, text: str) -> None:
        if self._open and self._open[-1][0]:
            self._open[-1][1].append(text)

    def end(self, _: str) -> None:
        name, texts = self._open.pop()
        if name:
            self._add(name, "".join(texts))

    def _add(self, name: Name, value: str) -> None:
        if value.strip():
            self.found[name].append(value.strip())


def _of_jpeg(data: bytes) -> Iterator[bytes]:
    """The packet of an APP1 segment, then what extends it: parts of at most 64 kB, each with its place."""
    extended: dict[bytes, dict[int, bytes]] = defaultdict(dict)  # by the extension's MD5
    for segment in _segments(data):
        if segment.startswith(_MAIN):
            yield segment[len(_MAIN) :]
        elif segment.startswith(_EXTENDED):
            body = segment[len(_EXTENDED) :]
            extended[body[:32]][int.from_bytes(body[36:40], "big")] = body[40:]
    for parts in extended.values():
        yield b"".join(parts[place] for place in sorted(parts))


def _segments(data: bytes) -> Iterator[bytes]:
    """What the APP1 segments of a JPEG hold, up to its pixels."""
    place = 2
    while place + 4 <= len(data) and data[place] == 0xFF:
        marker = data[place + 1]
        if marker == 0xFF:  # a filling byte
            place += 1
        elif marker in _WITHOUT_LENGTH:
            place += 2
        elif marker in (0xD9, 0xDA):  # the end, or the pixels
            return
        else:
            end = place + 2 + int.from_bytes(data[place + 2 : place + 4], "big")
            if marker == 0xE1:
                yield data[place + 4 : end]
            place = max(end, place + 4)


class _Packed(bytes):
    """A packet that is packed by zlib."""


def _unpacked(packed: bytes, most: int) -> bytes:
    """The first ``most`` bytes of a packet; none where it is damaged."""
    try:
        return zlib.decompressobj().decompress(packed, most)
    except zlib.error:
        return b""


def _of_png(data: bytes) -> Iterator[bytes]:
    """The text of chunks iTXt with the keyword of XMP, before or behind the pixels, packed or not."""
    for kind, body in png.chunks(data):
        if kind != b"iTXt" or not body.startswith(_KEYWORD):
            continue
        is_packed, body = body[len(_KEYWORD) : len(_KEYWORD) + 1], body[len(_KEYWORD) + 2 :]
        text = body.split(b"\0", 2)[-1]  # behind language and translated keyword
        yield _Packed(text) if is_packed == b"\1" else text


def _of_webp(data: bytes) -> Iterator[bytes]:
    """The content of the chunk ``XMP``; chunks are padded to even lengths (RFC 9649)."""
    place = 12
    while place + 8 <= len(data):
        length = int.from_bytes(data[place + 4 : place + 8], "little")
        if data[place : place + 4] == b"XMP ":
            yield data[place + 8 : place + 8 + length]
        place += 8 + length + length % 2


def _of_others(data: bytes) -> Iterator[bytes]:
    """What Pillow finds: in TIFF, AVIF, GIF, and HEIC where its plugin is installed."""
    from PIL import Image

    libtiff.silence()
    try:
        heif.prepare(data)
        with Image.open(io.BytesIO(data)) as image:
            found = image.info.get("xmp")
            if found is None and image.format == "TIFF":
                found = getattr(image, "tag_v2", {}).get(700)
    except (
        Exception
    ):  # decoders raise anything on bytes made to break them, and then there is no packet
        return
    if isinstance(found, str):
        found = found.encode()
    if isinstance(found, bytes):
        yield found


def terms(packet: bytes, pattern: re.Pattern[bytes]) -> list[str]:
    """What matches in a packet that is no sound XML: text that a writer cut off or put behind the end."""
    return [match.decode("ascii", "replace") for match in pattern.findall(packet)]
