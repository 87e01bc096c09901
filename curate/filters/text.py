"""Captions as arrays of characters, for hashing words and n-grams."""

# pyright: reportAttributeAccessIssue=false
from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc  # generates its functions on import

from curate.run.hashing import GOLDEN, mix

MOST_AT_ONCE = 1 << 12  # captions; keeps the arrays within the processor's caches


@dataclass(frozen=True, slots=True)
class Text:
    """N captions with C code points together.

    Attributes:
        codes: (C,) uint32, the code points of all captions, concatenated.
        starts: (N + 1,) int64, the position in ``codes`` where each caption starts, then C.
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
        """The number of marked code points of each caption: (C,) bool => (N,) int64."""
        before = np.append(0, np.cumsum(marked))
        return before[self.starts[1:]] - before[self.starts[:-1]]

    def words(self, inside: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Hash the captions' words, which are the longest runs of marked code points.

        Args:
            inside: (C,) bool, True for a code point that belongs to a word.

        Returns:
            (W,) uint64, a hash of each word, and (N + 1,) int64, the index of each caption's first
            word among them, then W.
        """
        edge = np.zeros(len(inside) + 1, bool)
        edge[self.starts] = True
        before, after = np.append(False, inside), np.append(inside, False)
        starts = np.flatnonzero(after & (~before | edge))
        ends = np.flatnonzero(before & (~after | edge))
        return hashes(self.codes, starts, ends), np.searchsorted(starts, self.starts)


def mark(codes: np.ndarray, accepts: Callable[[str], bool]) -> np.ndarray:
    """Mask (C,): code points whose character is accepted; ``accepts`` sees each distinct one once."""
    table = np.zeros(int(codes.max(initial=0)) + 1, bool)
    table[codes] = True
    kinds = np.flatnonzero(table)
    table[kinds] = [accepts(chr(code)) for code in kinds]
    return table[codes]


def is_word_character(character: str) -> bool:
    """Whether it is a letter, a mark on a letter, or a number, in any script.

    >>> [is_word_character(c) for c in "aß猫٣ ,_"]
    [True, True, True, True, False, False, False]
    """
    return unicodedata.category(character)[0] in "LMN"


def hashes(units: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """A 64-bit hash of each slice ``units[start:end]``, in O(1) each, whatever its length.

    Polynomial hashes modulo 2^64 from prefix sums (Karp and Rabin 1987), with the finaliser of
    SplitMix64 (Steele et al. 2014) before and after, which spreads small code points over all bits.

    Args:
        units: (C,) unsigned integers.
        starts: (S,) the first position of each slice.
        ends: (S,) one past the last position of each slice.

    Returns:
        (S,) uint64.
    """
    powers = _powers(np.uint64(GOLDEN), len(units))
    inverses = _powers(np.uint64(pow(GOLDEN, -1, 1 << 64)), len(units) + 1)
    before = np.append(np.uint64(0), np.cumsum(mix(units.astype(np.uint64)) * powers))
    return mix((before[ends] - before[starts]) * inverses[starts])


def _powers(base: np.uint64, count: int) -> np.ndarray:
    powers = np.full(count, base, np.uint64)
    powers[:1] = 1
    return np.cumprod(powers)
