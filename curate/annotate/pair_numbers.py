"""A hash of each pair, by which pairs are drawn; and which pairs' embeddings are kept for the shuffled similarities."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import pandas as pd

from curate.run.hashing import GOLDEN, mix

ENOUGH = 30_000  # pairs; three times those that are drawn, as not every one is scored


def pair_numbers(keys: Sequence[str] | pd.Series, indices: np.ndarray) -> np.ndarray:
    """A hash of each pair's key and caption index (N,), integer: (N,) uint64."""
    codes, distinct = pd.factorize(np.asarray(keys, object))
    images = np.fromiter(map(_hash, distinct), np.uint64, len(distinct))
    return mix(_plus(images[codes], indices.astype(np.uint64) + np.uint64(1)))


def draw_hashes(numbers: np.ndarray, stream: int) -> np.ndarray:
    """The hashes (N,) uint64 by whose order pairs with these numbers are drawn; another stream draws others."""
    return mix(_plus(numbers, np.uint64(stream + 1)))


def drawn_bits(images: int) -> int:
    """How many leading bits of the hash in stream 0 are zero where a pair's embeddings are kept.

    About ``ENOUGH`` pairs of ``images`` of one caption each or twice as many have such hashes; 0 keeps all.
    """
    return max(0, (images // ENOUGH).bit_length() - 1)


def may_be_drawn(numbers: np.ndarray, bits: int) -> np.ndarray:
    """Mask (N,) of the pairs whose hash in stream 0 begins with so many zeros."""
    return (
        draw_hashes(numbers, 0) < np.uint64(1 << (64 - bits))
        if bits
        else np.ones(len(numbers), bool)
    )


def _plus(numbers: np.ndarray, steps: np.ndarray | np.uint64) -> np.ndarray:
    """``numbers`` as many steps ahead in SplitMix64's sequence of states."""
    with np.errstate(over="ignore"):
        return numbers + steps * np.uint64(GOLDEN)


def _hash(key: str) -> int:
    """64 bits of a hash. Two of twelve million keys share one with a chance of 4 in a million."""
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "little")
