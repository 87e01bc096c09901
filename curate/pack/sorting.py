"""Sort the kept pairs of a ledger by shard, on the disk, so that each shard's rows can be read alone.

One Arrow record batch is one shard; its number in the files is the shard's ``Plan.place``.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import groupby, pairwise
from operator import itemgetter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.types as kinds

from curate.pack.buckets import mirrored
from curate.pack.config import HASH
from curate.pack.plan import Planned
from curate.pack.samples import LOCATIONS, stored
from curate.run.ledger_table import LedgerTable

SHARDS_PER_FILE = 64
_ROWS = 20_000  # of the sorted table that are in memory, beside the shard's that is written
_NUMBER = "__number__"
_OF_AN_IMAGE = "key, clip_similarity DESC NULLS LAST, caption_index"


@dataclass(frozen=True, slots=True)
class SortedRows:
    """The rows of all shards in ``folder``; ``read`` gives those of one."""

    folder: Path
    order: str

    def read(self, place: int) -> pa.Table:
        """The rows of the shard at a place: by hash, the same image's together, the most similar first."""
        file, batch = divmod(place, SHARDS_PER_FILE)
        with pa.memory_map(str(_file(self.folder, file))) as source:
            rows = pa.Table.from_batches([pa.ipc.open_file(source).get_batch(batch)])
            if self.order == HASH:
                hashes = mirrored(rows[_NUMBER].to_numpy())
                rows = rows.take(np.argsort(hashes, kind="stable"))
            return rows.drop_columns([_NUMBER])


def sort_rows(
    table: LedgerTable, schema: pa.Schema, number: str, planned: Planned, rows: SortedRows
) -> None:
    """Write the files of ``rows``, replacing earlier ones.

    Args:
        table: the ledger.
        schema: of its parts, whose types the rows get, and so their digests.
        number: the expression of ``numbering.numbered``.
        planned: the shards.
        rows: where they go.

    Raises:
        RuntimeError: the sorted rows are not those of the shards.
    """
    shutil.rmtree(rows.folder, ignore_errors=True)
    rows.folder.mkdir(parents=True)
    wanted, target = _columns(table, schema)
    target = target.append(pa.field(_NUMBER, pa.uint64()))
    ordered = table.connection.sql(
        f"SELECT {wanted}, {_NUMBER} FROM (SELECT *, {number} AS {_NUMBER} FROM ledger WHERE kept) "
        f"ORDER BY split, {_NUMBER}, {_OF_AN_IMAGE}"
    )
    with ordered.to_arrow_reader(_ROWS) as reader:
        found = _by_shard(reader, planned, target.get_field_index("split"))
        _write(rows.folder, found, target, len(planned.plans()))


def kept_rows(table: LedgerTable, schema: pa.Schema, keys: Sequence[str] | None = None) -> pa.Table:
    """The kept rows of some images, or of all, as ``samples.Samples`` takes them; they have to fit in memory.

    Args:
        table: the ledger.
        schema: of its parts.
        keys: of the images; None for all.
    """
    wanted, target = _columns(table, schema)
    chosen = "" if keys is None else " AND list_contains(?, key)"
    found = table.connection.sql(
        f"SELECT {wanted} FROM ledger WHERE kept{chosen} ORDER BY {_OF_AN_IMAGE}",
        params=[] if keys is None else [list(keys)],
    ).to_arrow_table()
    return _typed(found, target)


def _columns(table: LedgerTable, schema: pa.Schema) -> tuple[str, pa.Schema]:
    """The columns of shards in SQL, and their names and types.

    A column of flags that all kept pairs lack has no type.
    """
    names = [*stored(schema.names), *LOCATIONS]
    fields = [schema.field(name) for name in names if name in schema.names]
    types = {field.name: _plain(field.type) for field in fields}
    flags = [name for name, kind in types.items() if kinds.is_boolean(kind)]
    if flags:
        counts = ", ".join(f"count({table.column(name)})" for name in flags)
        [known] = table.connection.sql(f"SELECT {counts} FROM ledger WHERE kept").fetchall()
        types |= {name: pa.null() for name, count in zip(flags, known, strict=True) if not count}
    return ", ".join(table.column(field.name) for field in fields), pa.schema(types)


def _typed(found: pa.Table, schema: pa.Schema) -> pa.Table:
    """The columns with the names and types that they have in shards."""
    columns = []
    for column, field in zip(found.columns, schema, strict=True):
        if pa.types.is_null(field.type) and column.null_count == len(column):
            columns.append(pa.chunked_array([pa.nulls(len(column))]))
        else:
            columns.append(column.cast(field.type))
    return pa.table(columns, schema=schema)


def _plain(kind: pa.DataType) -> pa.DataType:
    """The type of a column's values, with room for a shard's texts."""
    if kinds.is_dictionary(kind):
        return _plain(kind.value_type)
    return pa.large_string() if kinds.is_string(kind) else kind


def _by_shard(
    reader: pa.RecordBatchReader, planned: Planned, split: int
) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Pieces of shards, each with its place."""
    last = 0
    for batch in reader:
        if not batch.num_rows:
            continue
        numbers = batch.column(batch.num_columns - 1).to_numpy(zero_copy_only=False)
        splits = batch.column(split).to_numpy(zero_copy_only=False)
        places = planned.places(splits, numbers.astype(np.uint64))
        if places[0] < last or (np.diff(places) < 0).any():
            raise RuntimeError("the rows of the shards came in another order than was asked for")
        edges = [0, *(np.flatnonzero(np.diff(places)) + 1).tolist(), len(places)]
        for first, end in pairwise(edges):
            yield int(places[first]), batch.slice(first, end - first)
        last = int(places[-1])


def _write(
    folder: Path, found: Iterator[tuple[int, pa.RecordBatch]], schema: pa.Schema, shards: int
) -> None:
    options = pa.ipc.IpcWriteOptions(compression="lz4")
    done = 0
    with ExitStack() as stack:
        writer = None
        for place, pieces in groupby(found, key=itemgetter(0)):
            if place != done:
                raise RuntimeError(f"no rows for the shard at place {done}")
            if writer is None or place % SHARDS_PER_FILE == 0:
                stack.close()
                path = _file(folder, place // SHARDS_PER_FILE)
                writer = stack.enter_context(pa.ipc.new_file(str(path), schema, options=options))
            table = pa.Table.from_batches([piece for _, piece in pieces])
            [batch] = _typed(table, schema).combine_chunks().to_batches()
            writer.write_batch(batch)
            done += 1
    if done != shards:
        raise RuntimeError(f"rows of {done} shards, and {shards} were planned")


def _file(folder: Path, number: int) -> Path:
    return folder / f"{number:06d}.arrow"
