"""Near pairs of hashes that agree in a table's bands; of long runs of them, such as white products, not all.

A run longer than ``LONGEST`` is divided by further bands of the bits that are left, which loses no pair. What is
then still longer, tens of thousands of pictures with almost one hash, is compared with its first ``COMPARED``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from curate.decide.neighbours import BandTable, Pairs, band_tables, followed, packed, pairs_in_runs

LONGEST = 10_000  # hashes that agree in the chosen bands; up to there all are compared with all
COMPARED = 1_000  # of a longer run, with all of it

_PAIRS = 1 << 20  # pairs that are given at a time
_MOST_TABLES = 200  # to divide a run by; more would take longer than to compare its first ones


@dataclass(slots=True)
class Runs:
    """The near pairs that a table has to find, as ``neighbours.hamming_pairs`` does, and what is left out.

    Attributes:
        hashes: (N,) uint64; of a long run the first ones count, in this order.
        table: whose bands pairs agree in; in one without bands all are compared with all.
        distance: 0 ... 16 bits.
        crowded: the lengths of runs of which not all pairs were compared, known once all pairs were taken.
    """

    hashes: np.ndarray
    table: BandTable
    distance: int
    crowded: list[int] = field(default_factory=list)

    def pairs(self) -> Pairs:
        """Pairs of positions, each once, in no order."""
        longest = LONGEST if self.table.mask else len(self.hashes)
        return self._near(self._agreeing(None, self.table, longest, divided=False), self.table)

    def _agreeing(
        self, rows: np.ndarray | None, table: BandTable, longest: int, divided: bool
    ) -> Pairs:
        """Pairs of ascending positions, ``rows`` or all, that agree in a table, and rarely some that do not."""
        numbers, below = packed(self._values(rows, table))
        if long := _long(numbers, below, longest):
            values = self._values(rows, table)
            stays = np.ones(len(numbers), bool)
            for start, end in long:
                stays[start:end] = False
                run = (numbers[start:end] & below).astype(np.int64)
                # Equal numbers are mostly equal values, but length decides, so it has to be exact.
                for value in np.unique(values[run]):
                    of_value = run[values[run] == value]
                    of_value = of_value if rows is None else rows[of_value]
                    yield from self._of_run(of_value, table, longest, divided)
            numbers = numbers[stays]
        for one, other in pairs_in_runs(numbers, below):
            yield (one, other) if rows is None else (rows[one], rows[other])

    def _values(self, rows: np.ndarray | None, table: BandTable) -> np.ndarray:
        return (self.hashes if rows is None else self.hashes[rows]) & table.mask

    def _of_run(self, run: np.ndarray, table: BandTable, longest: int, divided: bool) -> Pairs:
        if len(run) <= longest:
            for one, other in pairs_in_runs(*packed(np.zeros(len(run), np.uint64))):
                yield run[one], run[other]
            return
        finer = [] if divided else band_tables(len(run), self.distance, ~table.mask)
        if 0 < len(finer) <= _MOST_TABLES:
            for each in finer:
                yield from self._near(self._agreeing(run, each, longest, divided=True), each)
            return
        self.crowded.append(len(run))
        for place in range(COMPARED):
            for start in range(place + 1, len(run), _PAIRS):
                later = run[start : start + _PAIRS]
                yield np.full(len(later), run[place]), later

    def _near(self, pairs: Pairs, table: BandTable) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for one, other in pairs:
            near = table.are_near(self.hashes[one] ^ self.hashes[other], self.distance)
            if near.any():
                yield one[near], other[near]


def _long(numbers: np.ndarray, below: np.uint64, longest: int) -> list[tuple[int, int]]:
    """Start and end of each run longer than ``longest`` in sorted ``numbers``, see ``neighbours.packed``."""
    within = followed(numbers, below, longest)
    if not len(within):
        return []
    # The last places of a run begin no stretch of this length, so there is a gap before the next run.
    gaps = np.flatnonzero(np.diff(within) > 1)
    starts, lasts = within[np.append(0, gaps + 1)], within[np.append(gaps, -1)]
    return [
        (int(start), int(last) + longest + 1) for start, last in zip(starts, lasts, strict=True)
    ]
