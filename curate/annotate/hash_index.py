"""A compact map from the hash of a name to a number: 16 bytes an entry."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np


class HashIndex:
    """A mapping that only grows; of equal names the latest counts.

    Entries lie in runs, each sorted and at least twice as long as the next: N entries are in no more
    than log2(N) runs, each of which is searched by bisection.
    """

    def __init__(self) -> None:
        self._runs: list[tuple[np.ndarray, np.ndarray]] = []

    def add(self, names: np.ndarray, values: np.ndarray) -> None:
        """Add N entries: names (N,) uint64, values (N,) int64."""
        runs = [*self._runs, _sorted(names, values)]
        while len(runs) > 1 and len(runs[-2][0]) < 2 * len(runs[-1][0]):
            last, before = runs.pop(), runs.pop()
            merged = (np.concatenate(pair) for pair in zip(before, last, strict=True))
            runs.append(_sorted(*merged))
        self._runs = runs  # in one step, for threads that look something up meanwhile

    def find(self, name: int) -> int | None:
        """The value of ``name``."""
        wanted = np.uint64(name)
        for names, values in reversed(self._runs):
            place = int(np.searchsorted(names, wanted))
            if place < len(names) and names[place] == wanted:
                return int(values[place])
        return None


def _sorted(names: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """By name; of equal names the last."""
    order = np.argsort(names, kind="stable")
    names, values = names[order], values[order]
    last = np.append(names[1:] != names[:-1], True)[: len(names)]
    return names[last], values[last]


def name_of(*parts: str) -> int:
    """64 bits of a hash. Two of twelve million names share one with a chance of 4 in a million."""
    digest = hashlib.blake2b("\0".join(parts).encode(), digest_size=8)
    return int.from_bytes(digest.digest(), "little")


def names_of(rows: Sequence[Sequence[str]]) -> np.ndarray:
    """``name_of`` for each of N rows: (N,) uint64."""
    return np.fromiter((name_of(*parts) for parts in rows), np.uint64, len(rows))
