"""Queries on a ledger, whose rows stay on the disk: what comes back is a count, a group or some rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curate.run import parquet
from curate.run.database import Limits, connect, listed
from curate.run.ledger import ROWS_PER_PART, schema

if TYPE_CHECKING:
    import duckdb
    import pandas as pd


class LedgerTable:
    """The table ``ledger`` of a DuckDB connection: a ledger's columns, and ``row``, 0 ... N - 1 in input order.

    Attributes:
        columns: the names of the ledger's columns, without ``row``.
        pairs: N.
    """

    def __init__(
        self, connection: duckdb.DuckDBPyConnection, columns: Sequence[str], pairs: int
    ) -> None:
        self._connection = connection
        self.columns, self.pairs = tuple(columns), pairs

    def frame(self, query: str, *values: Any) -> pd.DataFrame:
        """The rows of a query, with ``?`` for each of ``values``; texts are ``str``, missing ones NaN."""
        return self._connection.sql(query, params=list(values)).to_arrow_table().to_pandas()

    def value(self, query: str, *values: Any) -> Any:
        """The one value of a query's one row."""
        ((value,),) = self._connection.sql(query, params=list(values)).fetchall()
        return value


@contextmanager
def ledger_table(parts: Sequence[Path], limits: Limits) -> Iterator[LedgerTable]:
    """The ledger in ``parts``, each but the last of ``ROWS_PER_PART`` rows.

    Raises:
        UserError: a part is damaged.
    """
    parquet.check_ahead(list(parts))
    columns = schema(parts[0]).names
    with connect(limits) as connection:
        # The part's number is the place of its name in the list.
        connection.sql(
            "CREATE VIEW ledger AS SELECT * EXCLUDE (file_row_number), "
            f"file_index::BIGINT * {ROWS_PER_PART} + file_row_number AS row "
            f"FROM read_parquet({listed(parts)}, file_row_number = true)"
        )
        ((pairs,),) = connection.sql("SELECT count(*) FROM ledger").fetchall()
        yield LedgerTable(connection, columns, pairs)
