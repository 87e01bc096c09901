"""The bytes that a shard stores for an image: the source's own bytes, or the image encoded again."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from curate.measures.decode import UnreadableImage, decode, encode, is_plain
from curate.pack.sample import EXTENSIONS
from curate.run.companions import sha256_column
from curate.run.schema import UserError
from curate.run.threads import in_order

ImageOf = Callable[[dict[str, Any]], bytes]
"""A sample's row => the bytes to store."""

CompanionsOf = Callable[[dict[str, Any]], dict[str, bytes]]
"""A sample's row => the bytes of the pictures beside it, by kind."""


class ImageChanged(UserError):
    """The bytes of the image ``key`` are not those that were measured."""

    def __init__(self, key: str, how: str) -> None:
        super().__init__(
            f"image {key} {how}; type the same command again, which measures the images as they are now"
        )
        self.key, self.how = key, how


def extension_of(image_format: str, formats: set[str]) -> str:
    """The image extension of a data set: as configured, or else png if every source is PNG, or jpg."""
    if image_format != "auto":
        return image_format
    return "png" if formats == {"PNG"} else "jpg"


def image_source(
    load: Callable[[str], bytes], location_of: Mapping[str, str], extension: str, jpeg_quality: int
) -> ImageOf:
    """A function from a row to its bytes: the source's own, or encoded again if not ``is_plain``.

    It can be called from several threads, and raises ``ImageChanged`` if the image has changed since
    it was measured.

    Args:
        load: reads an image of the source, location => bytes.
        location_of: key => location.
        extension: ``jpg`` or ``png``.
        jpeg_quality: 1 ... 100.
    """

    def image_of(row: dict[str, Any]) -> bytes:
        data = _unchanged(load, location_of[row["key"]], row["key"], row["sha256"])
        if EXTENSIONS.get(row["format"]) == extension and is_plain(data):
            return data
        return encode(decode(data), extension, jpeg_quality)

    return image_of


def companion_source(
    load: Callable[[str], bytes], locations: Mapping[str, Mapping[str, str]]
) -> CompanionsOf:
    """A function from a row to the source's own bytes of the pictures beside its image.

    It raises ``ImageChanged`` as :func:`image_source`'s does.

    Args:
        load: as for ``image_source``.
        locations: for each kind of ``companions.KINDS`` that the ledger knows, key => location.
    """

    def companions_of(row: dict[str, Any]) -> dict[str, bytes]:
        key = row["key"]
        return {
            kind: _unchanged(load, places[key], key, sha256, f"(its {kind} picture) ")
            for kind, places in locations.items()
            if (sha256 := row.get(sha256_column(kind)))
        }

    return companions_of


def _unchanged(
    load: Callable[[str], bytes], location: str, key: str, sha256: str, what: str = ""
) -> bytes:
    """The bytes at a location, if they have the hash that was measured."""
    try:
        data = load(location)
    except UnreadableImage as error:
        raise ImageChanged(key, f"{what}cannot be read any more ({error.reason})") from error
    if hashlib.sha256(data).hexdigest() != sha256:
        raise ImageChanged(key, f"{what}has changed since it was measured")
    return data


def images(
    pool: ThreadPoolExecutor,
    image_of: ImageOf,
    rows: list[dict[str, Any]],
    extension: str,
    ahead: int,
) -> Generator[bytes]:
    """The bytes of each row in order; if formats differ, ``pool`` encodes up to ``ahead`` rows early."""
    if all(EXTENSIONS.get(row["format"]) == extension for row in rows):
        # Passing unchanged bytes between threads would take longer than reading them.
        yield from map(image_of, rows)
    else:
        yield from in_order(pool, image_of, rows, ahead)
