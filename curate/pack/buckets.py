"""The bucket of each key: a function of the set of keys alone, in which added keys move few others."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np

BITS = 64


def key_hashes(keys: Iterable[str]) -> np.ndarray:
    """The first 64 bits of each key's BLAKE2b hash, uint64 (N,).

    Sorted by it, samples are mixed; readers themselves shuffle only a few thousand at a time.
    """
    digests = b"".join(hashlib.blake2b(key.encode()).digest()[:8] for key in keys)
    return np.frombuffer(digests, ">u8").astype(np.uint64)


def buckets(hashes: np.ndarray, most: int) -> np.ndarray:
    """The number of each hash's bucket, uint64 (N,), where no bucket holds more than ``most``.

    A bucket is the hashes that agree in their lowest d bits, and its number is these bits. All hashes
    begin in bucket 0, with d = 0. One that holds more than ``most`` is divided by its next bit: the
    hashes with 0 there keep the number i, the others get i + 2**d. So an added hash moves others only
    where it fills a bucket beyond ``most``, and of those it moves about half. No two buckets have the
    same number, because the hash i itself would lie in both. Numbers can have gaps.

    Hashes that are equal in all 64 bits stay together, however many they are.

    Args:
        hashes: uint64 (N,), in any order.
        most: 1 or more.
    """
    numbers = np.zeros(len(hashes), np.uint64)
    divided = np.arange(len(hashes))  # the hashes whose buckets hold too many
    for depth in range(1, BITS + 1):
        _, places, sizes = np.unique(numbers[divided], return_inverse=True, return_counts=True)
        divided = divided[sizes[places] > most]
        if not len(divided):
            break
        numbers[divided] = hashes[divided] & np.uint64(2**depth - 1)
    return numbers
