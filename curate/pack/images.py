"""The bytes that a shard stores for a picture: the source's own wherever any reader sees the same."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pandas as pd

from curate.measures.decode import UnreadableImage, decode, encode, is_plain
from curate.pack.sample import EXTENSIONS
from curate.run.cli import UserError
from curate.run.threads import in_order

ImageOf = Callable[[dict[str, Any]], bytes]
"""A sample's row => the bytes to store."""


def extension_of(image_format: str, formats: set[str]) -> str:
    """The one extension of a data set: as configured, or png where every source is PNG, else jpg."""
    if image_format != "auto":
        return image_format
    return "png" if formats == {"PNG"} else "jpg"


def image_source(
    load: Callable[[str], bytes], table: pd.DataFrame, extension: str, jpeg_quality: int
) -> ImageOf:
    """What gives the bytes for a row: the source's own, or encoded again where they are not plain.

    It may be called in several threads, and raises ``UserError`` when the image has changed since it
    was measured.

    Args:
        load: the source's, location => bytes.
        table: the ledger.
        extension: ``jpg`` or ``png``.
        jpeg_quality: 1 ... 100.
    """
    kept = table[table["kept"]].drop_duplicates("key")
    location_of = kept.set_index("key")["location"]

    def image_of(row: dict[str, Any]) -> bytes:
        try:
            data = load(location_of[row["key"]])
        except UnreadableImage as error:
            raise UserError(
                f"image {row['key']} is gone ({error.reason}); the same command again measures what "
                "is there"
            ) from error
        if hashlib.sha256(data).hexdigest() != row["sha256"]:
            raise UserError(
                f"image {row['key']} has changed since it was measured; the same command again "
                "measures what is new"
            )
        if EXTENSIONS.get(row["format"]) == extension and is_plain(data):
            return data
        return encode(decode(data), extension, jpeg_quality)

    return image_of


def images(
    pool: ThreadPoolExecutor,
    image_of: ImageOf,
    rows: list[dict[str, Any]],
    extension: str,
    ahead: int,
) -> Generator[bytes]:
    """The bytes for each row in order; threads of ``pool`` encode ``ahead`` of use if formats differ."""
    if all(EXTENSIONS.get(row["format"]) == extension for row in rows):
        # Handing plain copies over would take longer than reading them.
        yield from map(image_of, rows)
    else:
        yield from in_order(pool, image_of, rows, ahead)
