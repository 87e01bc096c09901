"""Which of near pictures is kept: of each two the preferred one, unless it goes itself."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from curate.decide import edges
from curate.decide.neighbours import Pairs
from curate.run.database import blocks

if TYPE_CHECKING:
    import duckdb


def write_kept(connection: duckdb.DuckDBPyConnection, links: str, count: int, path: Path) -> int:
    """Write each picture that goes as ``other`` with the one kept for it as ``one``; how many go.

    In order of preference, a picture is kept if it is near no kept one; otherwise the first kept one
    near it replaces it. Memory holds a byte for each picture.

    Args:
        connection: where ``links`` can be asked for.
        links: a query with the columns ``one`` and ``other``: the ranks of near pictures, each pair once or more.
        count: of ranks; 0 is the preferred picture.
        path: of the file, see ``edges.write``; there is none if none goes.
    """
    ordered = (
        f"SELECT least(one, other) AS low, greatest(one, other) AS high FROM ({links}) "
        "WHERE one <> other ORDER BY low, high"
    )
    return edges.write(path, _going(connection, ordered, count))


def _going(connection: duckdb.DuckDBPyConnection, ordered: str, count: int) -> Pairs:
    """Pairs (kept, going), from pairs (low, high) that come in order: what is before ``low`` is decided."""
    gone = bytearray(count)
    seen = np.frombuffer(gone, np.uint8)
    for block in blocks(connection, ordered):
        low, high = block["low"].to_numpy(), block["high"].to_numpy()
        open_still = (seen[low] | seen[high]) == 0  # most of a crowd is decided by its first
        kept, going = [], []
        for one, other in zip(low[open_still].tolist(), high[open_still].tolist(), strict=True):
            if not gone[one] and not gone[other]:
                gone[other] = 1
                kept.append(one)
                going.append(other)
        yield np.array(kept, np.int64), np.array(going, np.int64)
