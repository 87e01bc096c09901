"""What pictures look like, by hash and thumbnail."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa

from curate.measures import thumbnail
from curate.measures.phash import PIXELS_DIGITS
from curate.run.hashing import mix

COLUMNS = ("phash", "phash_mirrored", "thumbnail")


@dataclass(frozen=True, slots=True)
class Looks:
    """N pictures, as they are or mirrored.

    Attributes:
        hashes: (N,) uint64, perceptual ones.
        thumbnails: (N, 96) uint8, see ``measures.thumbnail``.
    """

    hashes: np.ndarray
    thumbnails: np.ndarray

    @classmethod
    def of(cls, pictures: pd.DataFrame) -> Looks:
        """The pictures as they are, from the columns ``phash`` and ``thumbnail``."""
        return cls(numbers(pictures["phash"]), thumbnails(pictures["thumbnail"]))

    @classmethod
    def both_ways(cls, pictures: pd.DataFrame) -> Looks:
        """First all pictures as they are, then all mirrored; from the columns ``COLUMNS``."""
        own = cls.of(pictures)
        turned = numbers(pictures["phash_mirrored"]), thumbnail.mirrored(own.thumbnails)
        return cls(
            np.concatenate([own.hashes, turned[0]]), np.concatenate([own.thumbnails, turned[1]])
        )

    def names(self) -> np.ndarray:
        """(N,) uint64, equal where hash and thumbnail are."""
        names = self.hashes
        for part in np.ascontiguousarray(self.thumbnails).view(np.uint64).T:
            names = mix(names ^ part)
        return names


def numbers(phashes: pd.Series | np.ndarray) -> np.ndarray:
    """Hashes of 16 hex digits as (N,) uint64.

    Raises:
        pa.ArrowInvalid: one is of another length.
    """
    digits = _fixed(phashes, PIXELS_DIGITS).tobytes().decode()
    return np.frombuffer(bytes.fromhex(digits), ">u8").astype(np.uint64)


def thumbnails(column: pd.Series | pa.Array) -> np.ndarray:
    """Of N pictures, (N, 96) uint8, see ``measures.thumbnail``."""
    return _fixed(column, thumbnail.BYTES).reshape(-1, thumbnail.BYTES)


def _fixed(values: pd.Series | np.ndarray | pa.Array, size: int) -> np.ndarray:
    """Texts or bytes of ``size`` bytes each, joined: (N * size,) uint8."""
    joined = pa.table({"values": values})["values"].cast(pa.large_binary()).combine_chunks()
    fixed = joined.cast(pa.binary(size))
    start, end = (size * row for row in (fixed.offset, fixed.offset + len(fixed)))
    return np.frombuffer(fixed.buffers()[1] or b"", np.uint8)[start:end]
