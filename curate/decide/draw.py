"""Which pairs are shuffled, and how: by hashes of key and caption index, so in whatever order they come."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from curate.annotate.pair_numbers import draw_hashes, pair_numbers

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["drawn", "drawn_of", "pair_numbers", "partners"]


def drawn(numbers: np.ndarray, count: int, stream: int) -> np.ndarray:
    """The ``count`` pairs with the least hashes, in ascending order of these: their positions (M,).

    Whatever other pairs there are, of two pairs the same one is drawn first.

    Args:
        numbers: of `pair_numbers`, (N,) uint64.
        count: how many to draw; all where there are fewer.
        stream: another one draws others.
    """
    return np.argsort(draw_hashes(numbers, stream), kind="stable")[:count]


def drawn_of(blocks: Iterable[pa.Table], count: int, stream: int) -> pa.Table:
    """As ``drawn``, of rows that come in blocks: the rows with the least hashes, in ascending order of these.

    Args:
        blocks: with ``number`` of ``pair_numbers`` and ``image``, which decides between equal numbers (and
            ``row``, where there is one). All have the same columns.
        count: how many to draw; all where there are fewer.
        stream: another one draws others.

    Returns:
        The rows drawn, all columns; an empty table without columns where there is no block.
    """
    import pyarrow as pa

    kept = pa.table({})
    for block in blocks:
        if len(kept) == count:  # most blocks have few that are less
            worst = draw_hashes(kept["number"].to_numpy()[-1:], stream)
            block = block.filter(pa.array(draw_hashes(block["number"].to_numpy(), stream) <= worst))
        rows = pa.concat_tables([kept, block]) if len(kept) else block
        ties = rows["row" if "row" in rows.column_names else "image"].to_numpy()
        order = np.lexsort((ties, draw_hashes(rows["number"].to_numpy(), stream)))
        kept = rows.take(pa.array(order[:count])).combine_chunks()
    return kept


def partners(numbers: np.ndarray, stream: int) -> np.ndarray:
    """For each pair the position of the one whose caption it is given: (N,).

    In ascending order of their hashes the pairs form a circle, in which each is given the caption of
    the next. So every caption is given once, and none to its own image unless it is alone.

    Args:
        numbers: of `pair_numbers`, (N,) uint64.
        stream: another one shuffles otherwise.
    """
    circle = np.argsort(draw_hashes(numbers, stream), kind="stable")
    found = np.empty(len(numbers), np.int64)
    found[circle] = np.roll(circle, -1)
    return found
