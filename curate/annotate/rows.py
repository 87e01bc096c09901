"""Rows of a sequence of parts by their number, counted through all of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from curate.annotate.parts import footer, read_part


def starts(parts: Sequence[Path]) -> np.ndarray:
    """The number of each part's first row, and of all rows: (P + 1,).

    The footers alone are read: a part is checked where its rows are read, not by whoever counts those of all.

    Raises:
        UserError: the footer of a part is damaged.
    """
    return starts_of([footer(path).num_rows for path in parts])


def starts_of(counts: Sequence[int]) -> np.ndarray:
    """As ``starts``, of parts of ``counts`` rows."""
    return np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])


def by_part(begins: np.ndarray, rows: np.ndarray) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Share rows (N,) out to the parts that hold them, in the order of the parts.

    Args:
        begins: of ``starts``.
        rows: in any order, perhaps several times the same.

    Yields:
        A part's number, the positions in ``rows`` of those it holds, ascending by row, and the rows within it.
    """
    order = np.argsort(rows, kind="stable")
    bounds = np.searchsorted(rows[order], begins)
    for number in np.flatnonzero(np.diff(bounds)):
        places = order[bounds[number] : bounds[number + 1]]
        yield int(number), places, rows[places] - begins[number]


def take(
    parts: Sequence[Path],
    rows: np.ndarray,
    columns: Sequence[str],
    begins: np.ndarray | None = None,
) -> pa.Table:
    """Some columns of ``rows`` (N,), in their order; each part that holds some is read once.

    Args:
        parts: that hold the rows.
        rows: in any order, perhaps several times the same.
        columns: which.
        begins: of ``starts``, where it is known.

    Raises:
        UserError: a part is damaged.
    """
    found, order = [], []
    begins = starts(parts) if begins is None else begins
    for number, places, within in by_part(begins, rows):
        table = read_part(parts[number], columns).select(list(columns))
        found.append(table.take(pa.array(within)).replace_schema_metadata(None))
        order.append(places)
    if not found:
        return pa.table({name: pa.array([], pa.null()) for name in columns})
    back = np.argsort(np.concatenate(order), kind="stable")
    return pa.concat_tables(found, promote_options="permissive").take(pa.array(back))
