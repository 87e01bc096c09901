"""Captions as arrays: their code points in a row, and hashes of words and other stretches."""

# pyright: reportAttributeAccessIssue=false
from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc  # makes its functions when it is imported

from curate.run.hashing import GOLDEN, mix

MOST_AT_ONCE = 1 << 12  # captions; keeps the arrays small enough for the processor's caches


@dataclass(frozen=True, slots=True)
class Text:
    """N captions.

    Attributes:
        codes: (C,) uint32, the code points of all captions, one caption after the other.
        starts: (N + 1,) int64, where each caption starts in ``codes``, and the end of the last.
    """

    codes: np.ndarray
    starts: np.ndarray

    @classmethod
    def blocks(cls, captions: pa.Array) -> Iterator[Text]:
        """The captions in order, ``MOST_AT_ONCE`` of them at a time."""
        for start in range(0, len(captions), MOST_AT_ONCE):
            block = captions.slice(start, MOST_AT_ONCE)
            lengths = pc.utf8_length(block).to_numpy(zero_copy_only=False)
            codes = "".join(block.to_pylist()).encode("utf-32-le")
            yield cls(np.frombuffer(codes, np.uint32), np.append(0, np.cumsum(lengths)))

    def count(self, marked: np.ndarray) -> np.ndarray:
        """How many code points of each caption are marked: (C,) bool => (N,) int64."""
        before = np.append(0, np.cumsum(marked))
        return before[self.starts[1:]] - before[self.starts[:-1]]

    def words(self, inside: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Hashes of the captions' words: the longest runs of marked code points.

        Args:
            inside: (C,) bool.

        Returns:
            (W,) uint64, a hash of each word, and (N + 1,) where each caption starts among them.
        """
        edge = np.zeros(len(inside) + 1, bool)
        edge[self.starts] = True
        before, after = np.append(False, inside), np.append(inside, False)
        starts = np.flatnonzero(after & (~before | edge))
        ends = np.flatnonzero(before & (~after | edge))
        return hashes(self.codes, starts, ends), np.searchsorted(starts, self.starts)


def mark(codes: np.ndarray, accepts: Callable[[str], bool]) -> np.ndarray:
    """(C,) bool: the code points whose character is accepted; each kind is asked about once."""
    table = np.zeros(int(codes.max(initial=0)) + 1, bool)
    table[codes] = True
    kinds = np.flatnonzero(table)
    table[kinds] = [accepts(chr(code)) for code in kinds]
    return table[codes]


def is_word_character(character: str) -> bool:
    """Letters, the marks on them, and digits, of any script.

    >>> [is_word_character(c) for c in "aß猫٣ ,_"]
    [True, True, True, True, False, False, False]
    """
    return unicodedata.category(character)[0] in "LMN"


def hashes(units: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """A 64-bit hash of each stretch ``units[start:end]``, whatever its length, in O(1) each.

    Polynomial hashes modulo 2^64 from prefix sums (Karp and Rabin 1987), with the finaliser of
    SplitMix64 (Steele et al. 2014) before and after, which spreads small code points over all bits.

    Args:
        units: (C,) unsigned integers.
        starts: (S,) positions.
        ends: (S,) positions, one past the last unit of each.

    Returns:
        (S,) uint64.
    """
    forth = _powers(np.uint64(GOLDEN), len(units))
    back = _powers(np.uint64(pow(GOLDEN, -1, 1 << 64)), len(units) + 1)
    before = np.append(np.uint64(0), np.cumsum(mix(units.astype(np.uint64)) * forth))
    return mix((before[ends] - before[starts]) * back[starts])


def _powers(base: np.uint64, count: int) -> np.ndarray:
    powers = np.full(count, base, np.uint64)
    powers[:1] = 1
    return np.cumprod(powers)
