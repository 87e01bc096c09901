"""Mix 64-bit integers over all their bits."""

from __future__ import annotations

import numpy as np

# 2**64 over the golden ratio, odd, so that it has an inverse: Knuth's multiplicative hashing (TAOCP 3,
# sec. 6.4) and the increment of SplitMix64.
GOLDEN = 0x9E3779B97F4A7C15


def mix(values: np.ndarray) -> np.ndarray:
    """Uint64 values (N,), each mapped to another one to one: the finaliser of SplitMix64.

    Steele, Lea and Flood (2014), "Fast Splittable Pseudorandom Number Generators".

    >>> [hex(value) for value in mix(np.array([0, 1, 2], np.uint64)).tolist()]
    ['0x0', '0x5692161d100b05e5', '0xdbd238973a2b148a']
    """
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
