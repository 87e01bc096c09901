"""The similarities of many pairs by their values: these have six digits, so there are 2 million at most."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from curate.run.database import named
from curate.run.ledger_table import LedgerTable

if TYPE_CHECKING:
    import duckdb


@dataclass(frozen=True, slots=True)
class Similarities:
    """Different similarities, and how many pairs have each.

    Attributes:
        values: (M,) float32, ascending.
        times: (M,) int64, each at least 1.
    """

    values: np.ndarray
    times: np.ndarray

    @classmethod
    def of(cls, ledger: LedgerTable, condition: str = "true") -> Similarities:
        """Those of the pairs that have one and meet a condition in SQL."""
        query = f"SELECT clip_similarity AS similarity FROM {named(ledger.name)} WHERE {condition}"
        return cls.asked(ledger.connection, query)

    @classmethod
    def asked(cls, connection: duckdb.DuckDBPyConnection, query: str) -> Similarities:
        """Those of a query's column ``similarity``, null for a pair that has none."""
        found = connection.sql(
            f"SELECT similarity, count(*) AS times FROM ({query}) WHERE similarity IS NOT NULL "
            "GROUP BY similarity ORDER BY similarity"
        ).to_arrow_table()
        values, times = (found[name].to_numpy() for name in ("similarity", "times"))
        return cls(values.astype(np.float32), times)

    @property
    def pairs(self) -> int:
        """N, the number of pairs."""
        return int(self.times.sum())

    def count(self, chosen: np.ndarray) -> int:
        """How many pairs have the values that a mask (M,) chooses."""
        return int(self.times[chosen].sum())

    def quantiles(self, shares: Sequence[float]) -> list[float]:
        """As ``numpy.quantile`` of all N, at least one."""
        ends = np.cumsum(self.times)
        found = []
        for share in shares:
            place = (self.pairs - 1) * share
            lower = math.floor(place)
            upper = min(lower + 1, self.pairs - 1)
            low, high = (
                float(self.values[np.searchsorted(ends, at, "right")]) for at in (lower, upper)
            )
            beyond, step = place - lower, high - low
            # As numpy adds, to the last digit.
            near_end = beyond >= 0.5
            found.append(high - step * (1 - beyond) if near_end else low + step * beyond)
        return found
