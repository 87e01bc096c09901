"""The bucket of each key: a function of the set of keys alone, in which added keys move few others."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable

import numpy as np

BITS = 64

Counted = Callable[[int, int, np.ndarray], tuple[np.ndarray, np.ndarray]]
"""(depth, above, heads) => the first ``depth`` bits of the numbers whose first ``above`` bits are among the
``heads``, uint64 (M,), each once, and how many numbers begin with them, int64 (M,)."""


def key_hashes(keys: Iterable[str]) -> np.ndarray:
    """The first 64 bits of each key's BLAKE2b hash, uint64 (N,).

    Sorted by it, samples are mixed; readers themselves shuffle only a few thousand at a time.
    """
    digests = b"".join(hashlib.blake2b(key.encode()).digest()[:8] for key in keys)
    return np.frombuffer(digests, ">u8").astype(np.uint64)


def mirrored(numbers: np.ndarray) -> np.ndarray:
    """The same 64 bits in the opposite order, uint64 (N,)."""
    swapped = numbers.astype(np.uint64)
    for step, mask in (
        (1, 0x5555555555555555),
        (2, 0x3333333333333333),
        (4, 0x0F0F0F0F0F0F0F0F),
    ):
        kept, shift = np.uint64(mask), np.uint64(step)
        swapped = ((swapped >> shift) & kept) | ((swapped & kept) << shift)
    return swapped.byteswap()


def divide(total: int, most: int, counted: Counted) -> tuple[np.ndarray, np.ndarray]:
    """Divide numbers into buckets that hold no more than ``most``, and return where each begins.

    All begin in one bucket. One that holds more than ``most`` is divided by the next bit of its numbers, the
    first of 64 first. Numbers that are equal stay together, however many they are. The numbers are ``mirrored``
    hashes of keys; a bucket is named after the hash that mirrors its beginning, so the hashes of a bucket agree
    in their lowest d bits, which are its name. An added hash moves others only where it fills a bucket
    beyond ``most``, and of those it moves about half: one half keeps the name i, the other gets i + 2**d. No two
    buckets have the same name, because the hash i itself would lie in both. Names can have gaps.

    Args:
        total: how many numbers there are.
        most: 1 or more.
        counted: counts them by their first bits.

    Returns:
        The least number that each bucket could hold, ascending, uint64 (B,), and how many it holds, int64 (B,).
    """
    if total <= most:
        found = min(total, 1)
        return np.zeros(found, np.uint64), np.full(found, total, np.int64)
    starts, sizes = [], []
    depth, heads, largest = 0, np.zeros(1, np.uint64), total
    while len(heads):
        above, depth = depth, min(BITS, depth + (largest // most).bit_length())
        firsts, counts = counted(depth, above, heads)
        for level in range(above + 1, depth + 1):
            own, places = np.unique(firsts >> np.uint64(depth - level), return_inverse=True)
            held = np.zeros(len(own), np.int64)
            np.add.at(held, places, counts)
            done = (held <= most) | (level == BITS)
            starts.append(own[done] << np.uint64(BITS - level))
            sizes.append(held[done])
            firsts, counts = firsts[~done[places]], counts[~done[places]]
            heads, largest = own[~done], int(held.max(initial=0))
    order = np.argsort(np.concatenate(starts))
    return np.concatenate(starts)[order], np.concatenate(sizes)[order]
