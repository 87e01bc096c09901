"""``<series>-series/trained_on.parquet``: what every judged run of a series was given; it outlives the runs' folders.

One row for each picture and side, with the numbers of the first and the last of consecutive judged runs that were
given it there, so that a week that adds 5 % adds about 5 % of rows. ``first`` and ``last`` count only runs that are
listed in the footer's metadata.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from curate.run import parquet
from workflows.retraining.series import Series

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

FILE = "trained_on.parquet"
IDENTITY = ["key", "sha256", "source", "split", "captions"]
_NUMBERS = b"darkroom.runs"


def read(series: Series) -> tuple[pd.DataFrame, list[int]]:
    """The spans, and the numbers of the runs that they are about.

    Returns:
        The columns ``IDENTITY, first, last``; no rows where no run was judged yet.

    Raises:
        UserError: the table is damaged.
    """
    import pandas as pd
    import pyarrow.parquet as pq

    path = series.folder / FILE
    if not path.is_file():
        return pd.DataFrame(columns=[*IDENTITY, "first", "last"]), []
    remedy = (
        "fetch it from a backup, or delete it: the next retraining writes its own pictures there"
    )
    with parquet.reporting_damage(path, remedy):
        table = pq.read_table(path)
        return table.to_pandas(), json.loads((table.schema.metadata or {})[_NUMBERS])


def of(series: Series, number: int) -> pd.DataFrame | None:
    """What a run was given, with the columns ``IDENTITY``; None where the table does not have that run."""
    spans, numbers = read(series)
    if number not in numbers:
        return None
    found = spans[(spans["first"] <= number) & (number <= spans["last"])]
    return found[IDENTITY].reset_index(drop=True)


def add(series: Series, number: int, given: pa.Table) -> None:
    """Add a run, or the last one again, which changes nothing.

    Args:
        series: that the run belongs to.
        number: of the run, larger than those that are there; an earlier one is there to stay.
        given: its ``finetune/trained_on.parquet``.
    """
    spans, numbers = read(series)
    if numbers and number < numbers[-1]:
        return
    if number in numbers:
        numbers = numbers[:-1]
        spans = spans[spans["first"] < number].copy()
        spans.loc[spans["last"] == number, "last"] = numbers[-1] if numbers else 0
    merged = _merged(spans, given.to_pandas()[IDENTITY], numbers[-1] if numbers else 0, number)
    _write(series, merged, [*numbers, number])


def _merged(spans: pd.DataFrame, given: pd.DataFrame, before: int, number: int) -> pd.DataFrame:
    """The spans, those that end with the run ``before`` prolonged where ``number`` was given the same."""
    import pandas as pd

    given = given.drop_duplicates()
    if spans.empty:
        return given.assign(first=number, last=number)
    open_ones = spans["last"] == before
    both = given.merge(spans[open_ones], on=IDENTITY, how="left")
    both["first"] = both["first"].fillna(number).astype(int)
    both["last"] = number
    goes_on = spans[open_ones].merge(given, on=IDENTITY, how="left", indicator=True)["_merge"]
    ended = spans[open_ones][(goes_on == "left_only").to_numpy()]
    return pd.concat([spans[~open_ones], ended, both], ignore_index=True)


def _write(series: Series, spans: pd.DataFrame, numbers: list[int]) -> None:
    import pyarrow as pa

    texts = [pa.field(name, pa.string()) for name in IDENTITY[:-1]]
    counts = [pa.field(name, pa.int32()) for name in (IDENTITY[-1], "first", "last")]
    schema = pa.schema([*texts, *counts], {_NUMBERS: json.dumps(numbers)})
    ordered = spans.sort_values(["first", "split", "key"], kind="stable")
    table = pa.Table.from_pandas(ordered, schema, preserve_index=False)
    parquet.write_table(series.folder / FILE, table.replace_schema_metadata(schema.metadata))
