"""HEIC and HEIF, the pictures of many telephones: Pillow reads them with package ``pillow-heif``, an extra."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from importlib.util import find_spec

from curate.measures.unreadable import CANNOT_BE_READ, UnreadableImage

NEEDS_PLUGIN = f"{CANNOT_BE_READ} (HEIC, type: pip install pillow-heif)"

_BRANDS = tuple(f"he{name}".encode() for name in ("ic", "ix", "im", "is", "vc", "vx", "vm", "vs"))
_ANY_CODEC = (b"mif1", b"msf1")  # AVIF may name these first, too; Pillow itself reads AVIF


def prepare(data: bytes) -> None:
    """Make Pillow ready for ``data``, if it is HEIC.

    Raises:
        UnreadableImage: it is, and the package is not installed.
    """
    if _is_heic(data) and not _registered():
        raise UnreadableImage(NEEDS_PLUGIN)


def _is_heic(data: bytes) -> bool:
    """By the first box of an ISO base media file: length, ``ftyp``, brand, version, further brands."""
    if data[4:8] != b"ftyp":
        return False
    box = data[8 : min(int.from_bytes(data[:4], "big"), 256)]
    others = [box[start : start + 4] for start in range(8, len(box), 4)]
    return box[:4] in _BRANDS or (box[:4] in _ANY_CODEC and not {*_BRANDS}.isdisjoint(others))


@cache
def _registered() -> bool:
    """Whether Pillow opens HEIC: registers the package's opener, once, where it is installed."""
    if find_spec("pillow_heif") is None:
        return False
    import_module("pillow_heif").register_heif_opener()
    return True
