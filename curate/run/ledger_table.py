"""Queries on a ledger, whose rows stay on the disk: what comes back is a count, a group or some rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curate.run import ledger
from curate.run.database import Limits, connect, named, parquet_files

if TYPE_CHECKING:
    import duckdb
    import pandas as pd
    import pyarrow as pa

_OURS = frozenset(ledger.COLUMNS)


class LedgerTable:
    """A ledger as a view of a DuckDB connection.

    In SQL the columns of ``ledger.COLUMNS`` have their own names. All others are called what ``column`` says, since
    DuckDB takes ``Key`` and ``key`` for one name, and sources name columns as they like; ``frame`` and ``rows``
    give them their names back. The view has two columns more: ``row``, 0 ... N - 1 in input order, and ``image``, the
    row of the first caption of the row's image.

    Attributes:
        connection: of DuckDB, for functions, tables and views beside the ledger; whoever makes them removes them.
        name: of the view.
        parts: the ledger's files.
        columns: the names of the ledger's columns, in the files' order.
        pairs: N.
    """

    def __init__(
        self, connection: duckdb.DuckDBPyConnection, parts: Sequence[Path], name: str = "ledger"
    ) -> None:
        """Make the view; see ``ledger_table``."""
        self.connection, self.name, self.parts = connection, name, tuple(parts)
        self._schemas = [ledger.schema(path).remove_metadata() for path in self.parts]
        self.columns = tuple(dict.fromkeys(each for part in self._schemas for each in part.names))
        others = [column for column in self.columns if column not in _OURS]
        self._place = {column: f"column_{number}" for number, column in enumerate(others)}
        self._named = {place: column for column, place in self._place.items()}
        connection.sql(
            f"CREATE OR REPLACE VIEW {named(name)} AS {self._select(range(len(self.parts)))}"
        )
        self.pairs = int(self.value(f"SELECT count(*) FROM {named(name)}"))

    def beside(self, name: str, parts: Sequence[Path]) -> LedgerTable:
        """Another ledger, as the view ``name`` of the same connection.

        Raises:
            UserError: a part is damaged.
        """
        ledger.check_parts(parts)
        return LedgerTable(self.connection, parts, name)

    def __contains__(self, column: str) -> bool:
        return column in self.columns

    def column(self, name: str) -> str:
        """What a column of the ledger is called in SQL.

        Raises:
            KeyError: the ledger has no such column.
        """
        return named(name) if name in _OURS and name in self.columns else self._place[name]

    def is_text(self, name: str) -> bool:
        """Whether a column holds texts."""
        return self.type_of(name) == "VARCHAR"

    def type_of(self, name: str) -> str:
        """The type of a column in SQL."""
        [(found,)] = self.tuples(
            "SELECT data_type FROM duckdb_columns() WHERE table_name = ? AND column_name = ?",
            self.name,
            self.column(name).strip('"'),
        )
        return found

    def frame(self, query: str, *values: Any) -> pd.DataFrame:
        """The rows of a query, with ``?`` for each of ``values``; texts are ``str``, missing ones NaN.

        Whole numbers stay whole where some are missing, as in ``annotate.frame``.
        """
        import pandas as pd
        import pyarrow as pa

        table, whole = self.connection.sql(query, params=list(values)).to_arrow_table(), pa.int64()
        found = table.to_pandas()
        for name, column in zip(table.column_names, table.columns, strict=True):
            if column.type == whole and column.null_count:
                found[name] = column.to_pandas(types_mapper={whole: pd.Int64Dtype()}.get)
        found.columns = self._named_again(found.columns)  # last: two may have one name then
        return found

    def batches(self, query: str, *values: Any, rows: int = 100_000) -> Iterator[pa.RecordBatch]:
        """The rows of a query, some at a time; meanwhile the connection takes no other query."""
        found = self.connection.sql(query, params=list(values)).to_arrow_reader(rows)
        for batch in found:
            yield batch.rename_columns(self._named_again(batch.schema.names))

    def tuples(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """The rows of a query as Python's values."""
        return self.connection.sql(query, params=list(values)).fetchall()

    def value(self, query: str, *values: Any) -> Any:
        """The one value of a query's one row."""
        ((value,),) = self.tuples(query, *values)
        return value

    def count(self, condition: str = "true", *values: Any) -> int:
        """How many pairs meet a condition."""
        return int(
            self.value(f"SELECT count(*) FROM {named(self.name)} WHERE {condition}", *values)
        )

    def images(self, condition: str = "true", *values: Any) -> int:
        """How many images have a pair that meets a condition."""
        query = f"SELECT count(DISTINCT image) FROM {named(self.name)} WHERE {condition}"
        return int(self.value(query, *values))

    def rows(self, numbers: Sequence[int]) -> pd.DataFrame:
        """Some rows with all columns of the ledger, in the order of ``numbers``, which index them.

        Only the parts that hold them are read.
        """
        wanted = [int(number) for number in numbers]
        parts = sorted({number // ledger.ROWS_PER_PART for number in wanted}) or [0]
        query = f"SELECT * EXCLUDE (image) FROM ({self._select(parts)})"
        found = self.frame(f"{query} WHERE row IN (SELECT unnest(?::BIGINT[]))", wanted)
        # By place: a column of the source may be called ``row`` as well.
        found.index = found.iloc[:, -1].to_numpy()
        return found.iloc[:, :-1].loc[wanted, list(self.columns)]

    def _named_again(self, places: Sequence[str]) -> list[str]:
        return [self._named.get(place, place) for place in places]

    def _select(self, numbers: Sequence[int]) -> str:
        """The rows of some parts: our columns, the others, ``image`` and ``row``."""
        runs = groupby(enumerate(numbers), lambda each: (self._schemas[each[1]], each[1] - each[0]))
        return " UNION ALL ".join(self._run([number for _, number in run]) for _, run in runs)

    def _run(self, numbers: Sequence[int]) -> str:
        """The rows of consecutive parts of one schema."""
        types = self._schemas[numbers[0]]
        place = {name: f"_{number}" for number, name in enumerate(types.names)}
        shown = [f"{_typed(types, name, place)} AS {self.column(name)}" for name in self.columns]
        # The columns of parquet are renamed by their places, and do not hide DuckDB's own two then.
        row = f"(file_index::BIGINT + {numbers[0]}) * {ledger.ROWS_PER_PART} + file_row_number"
        first = f" - {place['caption_index']}" if "caption_index" in place else ""
        rows = parquet_files([self.parts[number] for number in numbers])
        return (
            f"SELECT {', '.join(shown)}, {row}{first} AS image, {row} AS row "
            f"FROM {rows} AS part({', '.join(place.values())})"
        )


def _typed(types: pa.Schema, name: str, place: dict[str, str]) -> str:
    """A column as an expression; one without values is of texts."""
    import pyarrow as pa

    if name not in place:
        return "NULL"
    is_empty = pa.types.is_null(types.field(name).type)
    return "NULL::VARCHAR" if is_empty else place[name]


@contextmanager
def ledger_table(parts: Sequence[Path], limits: Limits) -> Iterator[LedgerTable]:
    """The ledger in ``parts``, each but the last of ``ledger.ROWS_PER_PART`` rows.

    Raises:
        UserError: a part is damaged.
    """
    ledger.check_parts(parts)
    with connect(limits) as connection:
        yield LedgerTable(connection, parts)


def check_complete(table: LedgerTable, pairs: int) -> None:
    """Check that every pair has a row and a status, and every pair that is not kept a rule and a reason.

    Raises:
        RuntimeError: a pair is missing or added, or a verdict contradicts itself.
    """
    if table.pairs != pairs:
        raise RuntimeError(f"the ledger holds {table.pairs} pairs and the input {pairs}")
    is_kept = f"(status = '{ledger.KEPT}')"
    agree = f"status IN ('{ledger.KEPT}', '{ledger.DROPPED}', '{ledger.UNREADABLE}') AND kept = {is_kept} AND (reason = '') = {is_kept}"
    if "rule" in table:  # ledgers of earlier versions have none, or parts of them
        agree += f" AND (rule IS NULL OR (rule = '') = {is_kept})"
    differ = f"NOT coalesce({agree}, false)"
    if count := table.count(differ):
        query = f"SELECT key FROM {named(table.name)} WHERE {differ} ORDER BY row LIMIT 3"
        first = table.tuples(query)
        wrong = [key for (key,) in first]
        raise RuntimeError(f"kept, rule, reason and status disagree for {count} pairs: {wrong}")
