"""Ledgers that are small enough for a DataFrame: written, asked and read whole; and what is counted of them."""

from __future__ import annotations

import weakref
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import pyarrow as pa

from curate.decide.similarities import Similarities
from curate.run import ledger, parquet
from curate.run.database import Limits, connect
from curate.run.ledger_table import LedgerTable


def write(folder: Path, rows: pd.DataFrame) -> None:
    """Write the parts of a ledger with these rows; an earlier, longer one loses its last parts."""
    rest = [name for name in rows.columns if name not in ledger.COLUMNS]
    ordered = rows[[*ledger.COLUMNS, *sorted(rest)]]
    schema = pa.Schema.from_pandas(ordered, preserve_index=False)
    paths = set()
    for start in range(0, max(len(ordered), 1), ledger.ROWS_PER_PART):
        paths.add(path := folder / f"part-{start // ledger.ROWS_PER_PART:05d}.parquet")
        ledger.write_part(path, ordered.iloc[start : start + ledger.ROWS_PER_PART], schema)
    for stale in set(folder.glob("part-*.parquet")) - paths:
        stale.unlink()


def table_of(frame: pd.DataFrame) -> LedgerTable:
    """The ledger with the rows of a table; its temporary files go with it.

    ``frame`` may lack columns; without ``caption_index`` each row is an image.
    """
    rows, kept = pa.Table.from_pandas(frame, preserve_index=False), ExitStack()
    folder = Path(kept.enter_context(TemporaryDirectory()))
    starts = range(0, max(len(frame), 1), ledger.ROWS_PER_PART)
    parts = [folder / f"part-{number:05d}.parquet" for number in range(len(starts))]
    for path, start in zip(parts, starts, strict=True):
        parquet.write_table(path, rows.slice(start, ledger.ROWS_PER_PART))
    table = LedgerTable(kept.enter_context(connect(Limits(folder / "scratch"))), parts)
    weakref.finalize(table, kept.close)
    return table


def all_rows(table: LedgerTable) -> pd.DataFrame:
    """The whole ledger."""
    return table.rows(range(table.pairs))


def counted(similarities: np.ndarray) -> Similarities:
    """Those of an array (N,)."""
    return Similarities(*np.unique(np.asarray(similarities, np.float32), return_counts=True))
