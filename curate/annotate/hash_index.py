"""A compact map from the hash of a name to a number: 16 bytes an entry."""

from __future__ import annotations

import numpy as np

Run = tuple[np.ndarray, np.ndarray]
"""Sorted names (N,) uint64 and their values (N,) int64."""


class HashIndex:
    """A mapping that only grows; of equal names the latest counts.

    Entries lie in runs, each sorted and at least twice as long as the next: N entries are in no more
    than log2(N) runs, each of which is searched by bisection.
    """

    def __init__(self, base: Run | None = None, most: int | None = None) -> None:
        """A mapping.

        Args:
            base: entries that are there from the start, such as a file's; they stay as they are.
            most: more entries than that are forgotten all at once, but for the base.
        """
        self._base = [] if base is None else [base]
        self._runs: list[Run] = []
        self._most = most

    def add(self, names: np.ndarray, values: np.ndarray) -> None:
        """Add N entries: names (N,) uint64, values (N,) int64."""
        if self._most is not None and sum(len(n) for n, _ in self._runs) > self._most:
            self._runs = []
        runs = [*self._runs, _sorted(names, values)]
        while len(runs) > 1 and len(runs[-2][0]) < 2 * len(runs[-1][0]):
            last, before = runs.pop(), runs.pop()
            merged = (np.concatenate(pair) for pair in zip(before, last, strict=True))
            runs.append(_sorted(*merged))
        self._runs = runs  # in one step, for threads that look something up meanwhile

    def find(self, name: int) -> int | None:
        """The value of ``name``."""
        wanted = np.uint64(name)
        for names, values in reversed([*self._base, *self._runs]):
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
