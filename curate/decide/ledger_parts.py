"""The ledger's parts: what was measured of each pair, and the verdict on it, written by tasks.

The verdicts come as one file for each part, in the order of the input; the words that the ledger says are made here,
from a code and from what was measured.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from curate.annotate.frame import frame_of
from curate.annotate.layout import Layout
from curate.annotate.spec import AnnotationSpec
from curate.decide.narrow import HEADS, NarrowTask
from curate.decide.tables import PASSES, UNREADABLE
from curate.filters import companions as companion_rule
from curate.filters.rule import Reason
from curate.run import companions, ledger
from curate.run.engine.tasks import Progress, Worker

if TYPE_CHECKING:
    import duckdb

VERDICTS = pa.schema(
    {
        "code": pa.int16(),
        "duplicate_group": pa.uint64(),  # null, as the next, where the picture was not decoded
        "copy_group": pa.uint64(),
        "duplicate_of": pa.string(),
        "split": pa.string(),
        "held_out_by": pa.string(),
    }
)

# Not in the ledger, or there in other words.
_INTERNAL = ("has_caption", "pixels_sha256", "thumbnail", "error", "version", companions.ERROR)


@dataclass(frozen=True, slots=True)
class Stretch:
    """A file with rows ``start`` ... ``stop`` - 1 of all."""

    path: Path
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class LedgerTask:
    """One part of the ledger.

    Attributes:
        path: of the part.
        start: the number of its first row.
        stop: that of the row after its last.
        verdicts: the file of its verdicts.
        annotations: the parts that hold its rows.
        scores: the files that hold the scores of heads for its rows; empty where there are no heads.
    """

    path: Path
    start: int
    stop: int
    verdicts: Path
    annotations: tuple[Stretch, ...]
    scores: tuple[Stretch, ...]


def write_verdicts(
    connection: duckdb.DuckDBPyConnection, query: str, pairs: int, folder: Path
) -> list[Path]:
    """The rows of a query with the columns of ``VERDICTS``, in files of ``ledger.ROWS_PER_PART``, at least one.

    Raises:
        RuntimeError: they are not as many as ``pairs``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    size = ledger.ROWS_PER_PART
    paths = [folder / f"{number:05d}.parquet" for number in range(max(1, -(-pairs // size)))]
    rows = 0
    batches = _rechunked(connection.sql(query).to_arrow_reader(size), size)
    for path in paths:
        table = next(batches, VERDICTS.empty_table())
        pq.write_table(table.cast(VERDICTS), path)
        rows += len(table)
    if rows != pairs or next(batches, None) is not None:
        raise RuntimeError(f"there are {rows} verdicts or more for {pairs} pairs")
    return paths


def _rechunked(batches: Iterable[pa.RecordBatch], size: int) -> Iterator[pa.Table]:
    """The same rows in tables of ``size``, but for the last one."""
    waiting: list[pa.Table] = []
    count = 0
    for batch in batches:
        table = pa.Table.from_batches([batch])
        while count + len(table) >= size:
            yield pa.concat_tables([*waiting, table.slice(0, size - count)])
            table = table.slice(size - count)
            waiting, count = [], 0
        waiting, count = [*waiting, table], count + len(table)
    if count:
        yield pa.concat_tables(waiting)


def tasks_of(
    folder: Path,
    verdicts: Sequence[Path],
    parts: Sequence[Path],
    layout: Layout,
    narrow: Sequence[NarrowTask],
    scores: Path | None,
) -> list[LedgerTask]:
    """One task for each file of ``verdicts``; ``scores`` is the folder of the narrow tables if there are heads."""
    ends = np.cumsum(layout.rows).tolist()
    annotations = _between(
        tuple(
            Stretch(path, end - rows, end)
            for path, end, rows in zip(parts, ends, layout.rows, strict=True)
        )
    )
    heads = _between(
        ()
        if scores is None
        else tuple(Stretch(task.file(scores, HEADS), task.start, task.stop) for task in narrow)
    )
    tasks = []
    for number, path in enumerate(verdicts):
        start = number * ledger.ROWS_PER_PART
        stop = min(start + ledger.ROWS_PER_PART, ends[-1])
        written = folder / f"part-{number:05d}.parquet"
        given = annotations(start, stop), heads(start, stop)
        tasks.append(LedgerTask(written, start, stop, path, *given))
    return tasks


def _between(stretches: tuple[Stretch, ...]) -> Callable[[int, int], tuple[Stretch, ...]]:
    """A function of start and stop: those of consecutive stretches that hold these rows; the first one for no rows."""
    starts, stops = [each.start for each in stretches], [each.stop for each in stretches]

    def between(start: int, stop: int) -> tuple[Stretch, ...]:
        found = stretches[bisect_right(stops, start) : bisect_left(starts, stop)]
        return found or stretches[:1]

    return between


@contextmanager
def worker(
    layout: Layout, spec: AnnotationSpec, reasons: Sequence[Reason], is_held_out_again: bool
) -> Iterator[Worker]:
    """A worker that takes a ``LedgerTask`` and writes its part.

    Args:
        layout: of all annotations.
        spec: what was measured.
        reasons: by code.
        is_held_out_again: whether ``split.held_out`` names a table, which gives the ledger a column.

    Raises, with the task:
        UserError: a part of the annotations is damaged.
    """

    def carry_out(task: LedgerTask, progress: Progress) -> None:
        paths = [stretch.path for stretch in task.annotations]
        pairs = _rows_of(task, task.annotations, frame_of(paths, layout, spec))
        if task.scores:
            tables = [pq.read_table(stretch.path) for stretch in task.scores]
            scored = pa.concat_tables(tables).to_pandas()
            pairs = pd.concat([pairs, _rows_of(task, task.scores, scored)], axis=1)
        verdicts = pq.read_table(task.verdicts)
        frame = _ledger(pairs, verdicts, reasons)
        if not is_held_out_again:
            frame = frame.drop(columns=ledger.HELD_OUT_BY)
        rest = sorted(set(frame.columns) - {*ledger.COLUMNS})
        ordered = frame[[*ledger.COLUMNS, *rest]]
        ledger.write_part(task.path, ordered, _schema(ordered, layout))
        progress(len(ordered))

    yield carry_out


def _rows_of(task: LedgerTask, stretches: Sequence[Stretch], frame: pd.DataFrame) -> pd.DataFrame:
    """The task's rows among those of consecutive stretches, numbered from 0."""
    first = stretches[0].start
    return frame.iloc[task.start - first : task.stop - first].reset_index(drop=True)


def _ledger(pairs: pd.DataFrame, verdicts: pa.Table, reasons: Sequence[Reason]) -> pd.DataFrame:
    """The ledger's columns, in any order, from what was measured and a row of verdicts for each pair."""
    code = verdicts["code"].to_numpy()
    if len(code) != len(pairs):
        raise RuntimeError(f"there are {len(code)} verdicts for {len(pairs)} pairs")
    rule, reason = (
        np.array([getattr(each, name) for each in reasons], object)[np.maximum(code, 0)]
        for name in ("name", "reason")
    )
    unreadable = code == UNREADABLE
    rule[unreadable] = ledger.UNREADABLE
    reason[unreadable] = [f"{ledger.UNREADABLE}: {error}" for error in pairs["error"][unreadable]]
    wrong = code == reasons.index(companion_rule.ANY)
    if wrong.any():
        errors = companion_rule.errors(pairs)[wrong]
        reason[wrong] = [companion_rule.reason(error) for error in errors]
    kept = code == PASSES
    status = np.where(unreadable, ledger.UNREADABLE, np.where(kept, ledger.KEPT, ledger.DROPPED))
    texts = {
        "rule": rule,
        "reason": reason,
        "status": status,
        "duplicate_group": _hex(verdicts["duplicate_group"]),
        "copy_group": _hex(verdicts["copy_group"]),
        **{
            name: verdicts[name].to_numpy(zero_copy_only=False)
            for name in ("duplicate_of", "split", ledger.HELD_OUT_BY)
        },
        "shard": "",
    }
    as_text = {name: pd.Series(values, pairs.index, dtype="str") for name, values in texts.items()}
    return pairs.drop(columns=list(_INTERNAL), errors="ignore").assign(kept=kept, **as_text)


def _hex(names: pa.ChunkedArray) -> np.ndarray:
    """Numbers of groups as 16 hex digits, "" for none."""
    return np.array(["" if name is None else f"{name:016x}" for name in names.to_pylist()], object)


def _schema(rows: pd.DataFrame, layout: Layout) -> pa.Schema:
    """The types of a part of the ledger, which do not depend on its rows."""
    types = pa.Schema.from_pandas(rows, preserve_index=False)
    for place, field in enumerate(types):
        # Truths some of which are missing, and columns without values, are objects to pandas.
        if rows[field.name].dtype == object and field.name in layout.schema.names:
            types = types.set(place, field.with_type(layout.schema.field(field.name).type))
    return types
