"""Pairs of pictures that belong together, in files: tasks write them, tables and walks over graphs read them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from curate.decide.neighbours import Pairs, gathered
from curate.run.database import blocks, parquet_files
from curate.run.files import atomic_write

if TYPE_CHECKING:
    import duckdb

SCHEMA = pa.schema({"one": pa.int64(), "other": pa.int64()})

_BLOCK = 1 << 17  # pairs that are written at a time


def write(path: Path, pairs: Iterable[tuple[np.ndarray, np.ndarray]]) -> int:
    """Write pairs of numbers block by block, atomically, and say how many; the file of none has no rows.

    So a file that is missing was lost.
    """
    written = 0
    with atomic_write(path) as stream, pq.ParquetWriter(stream, SCHEMA) as writer:
        for one, other in gathered(pairs, _BLOCK):
            writer.write_table(pa.table([pa.array(one), pa.array(other)], schema=SCHEMA))
            written += len(one)
    return written


def of_files(paths: Sequence[Path]) -> str:
    """The pairs of all files as a query with the columns ``one`` and ``other``."""
    if not paths:
        return "SELECT 0::BIGINT AS one, 0::BIGINT AS other WHERE false"
    return f"SELECT one, other FROM {parquet_files(paths)}"


def numbered(connection: duckdb.DuckDBPyConnection, ordered: str, column: str) -> Pairs:
    """The places 0 ... N - 1 of the rows of an ordered query, with their values in ``column``."""
    start = 0
    for block in blocks(connection, ordered):
        values = block[column].to_numpy()
        yield np.arange(start, start + len(values)), values
        start += len(values)
