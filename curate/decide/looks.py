"""What pictures look like, by hash and thumbnail, and which of them are so near that they are copies."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa

from curate.decide import neighbours
from curate.decide.evidence import Evidence, alike, is_plain
from curate.measures import thumbnail
from curate.measures.phash import PIXELS_DIGITS
from curate.run.hashing import mix

CROWD = 512  # pictures of one hash; up to there all are compared with all
MOST_LEADERS = 1024
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
        return cls(numbers(pictures["phash"]), _thumbnails(pictures["thumbnail"]))

    @classmethod
    def both_ways(cls, pictures: pd.DataFrame) -> Looks:
        """First all pictures as they are, then all mirrored; from the columns ``COLUMNS``."""
        own = cls.of(pictures)
        turned = numbers(pictures["phash_mirrored"]), thumbnail.mirrored(own.thumbnails)
        return cls(
            np.concatenate([own.hashes, turned[0]]), np.concatenate([own.thumbnails, turned[1]])
        )

    def take(self, positions: np.ndarray) -> Looks:
        """Those at ``positions`` (M,)."""
        return Looks(self.hashes[positions], self.thumbnails[positions])

    def names(self) -> np.ndarray:
        """(N,) uint64, equal where hash and thumbnail are."""
        names = self.hashes
        for part in np.ascontiguousarray(self.thumbnails).view(np.uint64).T:
            names = mix(names ^ part)
        return names

    def searched(self) -> np.ndarray:
        """Positions of those whose hash says something; the others have copies among equals alone."""
        return np.flatnonzero(~is_plain(self.thumbnails))

    def alike(self, limits: Evidence) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
        """A function of two arrays of positions (M,): the mask (M,) of the pairs that may be copies."""
        return lambda one, other: alike(self.thumbnails[one], self.thumbnails[other], limits)

    def near_pairs(self, distance: int, limits: Evidence) -> neighbours.Pairs:
        """Pairs of different looks that are near in ``distance`` bits and ``alike`` by ``limits``.

        Of a crowd, see ``leaders``, each member has a pair with its leader, and leaders with all others.
        """
        leaders = self.leaders(limits)
        led = np.flatnonzero(leaders != np.arange(len(leaders)))
        yield leaders[led], led
        rows = np.setdiff1d(self.searched(), led, assume_unique=True)
        may_be = self.alike(limits)
        for one, other in neighbours.hamming_pairs(self.hashes[rows], distance):
            first, second = rows[one], rows[other]
            near = may_be(first, second)
            if near.any():
                yield first[near], second[near]

    def stays(self, distance: int, limits: Evidence) -> np.ndarray:
        """For each (N,) the position of the one kept for it, its own or an earlier one.

        As ``neighbours.stays_by_hash``, with ``alike`` pairs only; the members of a crowd, see ``leaders``,
        go with their leader.
        """
        leaders = self.leaders(limits)
        rows = self.searched()
        rows = rows[leaders[rows] == rows]
        kept = np.arange(len(self.hashes))
        may_be = self.take(rows).alike(limits)
        kept[rows] = rows[neighbours.stays_by_hash(self.hashes[rows], distance, may_be)]
        return kept[leaders]

    def leaders(self, limits: Evidence) -> np.ndarray:
        """For each (N,) the first position that it is ``alike`` among more than ``CROWD`` of one hash; its own else.

        A logo or placeholder comes thousands of times, saved in as many ways; to compare all with all would
        take hours. Each is compared with the leaders so far, of which such a crowd has few; what is like
        none of ``MOST_LEADERS`` is taken for a picture of its own.
        """
        leaders = np.arange(len(self.hashes))
        rows = self.searched()
        order = rows[np.argsort(self.hashes[rows], kind="stable")]
        starts = np.flatnonzero(np.diff(self.hashes[order])) + 1
        for left in np.split(order, starts):
            found = 0
            while len(left) > (0 if found else CROWD) and found < MOST_LEADERS:
                same = np.full(len(left), left[0])
                near = self.alike(limits)(same, left)
                near[0] = True
                leaders[left[near]] = left[0]
                left, found = left[~near], found + 1
        return leaders


def numbers(phashes: pd.Series | np.ndarray) -> np.ndarray:
    """Hashes of 16 hex digits as (N,) uint64.

    Raises:
        pa.ArrowInvalid: one is of another length.
    """
    digits = _fixed(phashes, PIXELS_DIGITS).tobytes().decode()
    return np.frombuffer(bytes.fromhex(digits), ">u8").astype(np.uint64)


def _thumbnails(column: pd.Series) -> np.ndarray:
    return _fixed(column, thumbnail.BYTES).reshape(-1, thumbnail.BYTES)


def _fixed(values: pd.Series | np.ndarray, size: int) -> np.ndarray:
    """Texts or bytes of ``size`` bytes each, joined: (N * size,) uint8."""
    joined = pa.table({"values": values})["values"].cast(pa.large_binary()).combine_chunks()
    fixed = joined.cast(pa.binary(size))
    start, end = (size * row for row in (fixed.offset, fixed.offset + len(fixed)))
    return np.frombuffer(fixed.buffers()[1] or b"", np.uint8)[start:end]
