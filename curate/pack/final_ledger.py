"""Write the final ledger: the staged parts with the shard of each kept pair, a task for each part."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from curate.pack.numbering import numbers
from curate.pack.plan import Planned
from curate.pack.samples import in_one_piece
from curate.run import ledger, parquet
from curate.run.engine.tasks import Engine, Progress, WorkerSpec, values
from curate.run.files import remove_parts

if TYPE_CHECKING:
    import pyarrow as pa


def write_ledger(
    folder: Path, staged: Sequence[Path], planned: Planned, order: str, engine: Engine
) -> None:
    """Write ``folder/part-*.parquet`` and remove parts of an earlier, longer ledger.

    Args:
        folder: of the final ledger.
        staged: its parts in order, each but the last of ``ledger.ROWS_PER_PART`` rows.
        planned: the shards.
        order: the setting ``shards.order``.
        engine: carries out the tasks.
    """
    spec = WorkerSpec(
        "curate.pack.final_ledger:writing", {"folder": folder, "planned": planned, "order": order}
    )
    tasks = [(number, path) for number, path in enumerate(staged)]
    written = set(values(engine.map(spec, tasks), "writing the ledger"))
    for stale in set(folder.glob("part-*.parquet")) - written:
        stale.unlink()
    remove_parts(folder)


@contextmanager
def writing(
    folder: Path, planned: Planned, order: str
) -> Iterator[Callable[[tuple[int, Path], Progress], Path]]:
    """A worker that writes one part."""

    def write(task: tuple[int, Path], progress: Progress) -> Path:
        import pyarrow.parquet as pq

        number, staged = task
        path = folder / f"part-{number:05d}.parquet"
        with parquet.reporting_damage(staged, "type the same command again"):
            table = pq.read_table(staged).cast(parquet.schema_as_written(staged))
        first_row = number * ledger.ROWS_PER_PART
        parquet.write_table(path, with_shards(table, first_row, planned, order))
        return path

    yield write


def with_shards(table: pa.Table, first_row: int, planned: Planned, order: str) -> pa.Table:
    """The same rows with the column ``shard``: the path of the kept pairs' tars, and "" for others."""
    import pyarrow as pa

    table = table.combine_chunks()
    kept = np.flatnonzero(table["kept"].to_numpy())
    chosen = table.select(["key", "caption_index", "split"]).take(kept).combine_chunks()
    found = numbers(
        order,
        in_one_piece(chosen["key"]),
        first_row + kept,
        chosen["caption_index"].to_numpy(),
    )
    places = planned.places(chosen["split"].to_numpy(), found)
    unique, which = np.unique(places, return_inverse=True)
    texts = pa.array(["", *planned.paths(unique.tolist())])
    rows = np.zeros(len(table), np.int64)
    rows[kept] = 1 + which
    field = table.schema.field("shard")
    return table.set_column(
        table.schema.get_field_index("shard"), field, texts.take(pa.array(rows)).cast(field.type)
    )
