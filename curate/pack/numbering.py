"""The number of each kept image, by which it is packed, and the shards that follow from all numbers, in SQL.

In the order ``hash`` it is the ``mirrored`` hash of the image's key, in which each bucket is a range; in the order
``source`` it is the row of the image's first caption.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from curate.pack.buckets import BITS, divide, key_hashes, mirrored
from curate.pack.config import HASH, ShardsConfig
from curate.pack.plan import Planned, Side
from curate.run.database import registered
from curate.run.ledger_table import LedgerTable

if TYPE_CHECKING:
    import pyarrow as pa

_FUNCTION = "number_of_key"
_IMAGES, _HEADS = "numbered_images", "numbered_heads"


def numbers(order: str, keys: pa.Array, rows: np.ndarray, caption_index: np.ndarray) -> np.ndarray:
    """The number of each row's image, uint64 (N,).

    Args:
        order: ``hash`` or ``source``.
        keys: [N] texts.
        rows: int64 (N,), in the order of the input.
        caption_index: (N,) of whole numbers.
    """
    if order == HASH:
        encoded = keys.dictionary_encode()
        places = encoded.indices.to_numpy(zero_copy_only=False)
        return mirrored(key_hashes(encoded.dictionary.to_pylist()))[places]
    return (rows - caption_index).astype(np.uint64)


@contextmanager
def numbered(table: LedgerTable, order: str) -> Iterator[str]:
    """An expression in SQL, for the rows of ``ledger``, of the number of their image."""
    if order != HASH:
        yield "image::UBIGINT"
        return
    from duckdb.func import ARROW

    # DuckDB evaluates the annotations of a function, but not of a lambda.
    function = lambda keys: _numbers_of_keys(keys)  # noqa: E731
    table.connection.create_function(_FUNCTION, function, ["VARCHAR"], "UBIGINT", type=ARROW)
    try:
        yield f"{_FUNCTION}(key)"
    finally:
        table.connection.remove_function(_FUNCTION)


def _numbers_of_keys(keys: pa.ChunkedArray) -> pa.Array:
    import pyarrow as pa

    combined = keys.combine_chunks() if isinstance(keys, pa.ChunkedArray) else keys
    nothing = np.empty(0, np.int64)
    return pa.array(numbers(HASH, combined, nothing, nothing))


def plan(table: LedgerTable, number: str, config: ShardsConfig, prefix: str = "") -> Planned:
    """The shards of the kept images of a ledger.

    Args:
        table: the ledger.
        number: the expression of ``numbered``.
        config: the keys ``shards.*``.
        prefix: of the tars' names.
    """
    connection = table.connection
    connection.sql(
        f"CREATE OR REPLACE TEMP TABLE {_IMAGES} AS SELECT DISTINCT split, image, {number} AS number "
        "FROM ledger WHERE kept"
    )
    try:
        sides = connection.sql(
            f"SELECT split, count(*) FROM {_IMAGES} GROUP BY split ORDER BY split"
        ).fetchall()
        of = _buckets if config.order == HASH else _in_order
        most = config.max_samples
        return Planned({split: of(table, split, count, most) for split, count in sides}, prefix)
    finally:
        connection.sql(f"DROP TABLE {_IMAGES}")


def _buckets(table: LedgerTable, split: str, total: int, most: int) -> Side:
    import pyarrow as pa

    def counted(depth: int, above: int, heads: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        within = f"number >> {BITS - above} IN (SELECT head FROM {_HEADS})" if above else "true"
        with registered(table.connection, _HEADS, pa.table({"head": heads})):
            found = table.connection.sql(
                f"SELECT number >> {BITS - depth} AS first, count(*) AS images FROM {_IMAGES} "
                f"WHERE split = ? AND {within} GROUP BY first",
                params=[split],
            ).to_arrow_table()
        return found["first"].to_numpy().astype(np.uint64), found["images"].to_numpy()

    starts, samples = divide(total, most, counted)
    return Side(starts, mirrored(starts), samples)


def _in_order(table: LedgerTable, split: str, total: int, most: int) -> Side:
    found = table.connection.sql(
        "SELECT number FROM (SELECT number, row_number() OVER (ORDER BY number) - 1 AS place "
        f"FROM {_IMAGES} WHERE split = ?) WHERE place % {most} = 0 ORDER BY number",
        params=[split],
    ).to_arrow_table()
    starts = found["number"].to_numpy().astype(np.uint64)
    samples = np.full(len(starts), most, np.int64)
    samples[-1] = total - most * (len(starts) - 1)
    return Side(starts, np.arange(len(starts), dtype=np.uint64), samples)
