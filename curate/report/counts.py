"""Counts for the report, each with the pandas query that reproduces it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from curate.report import page


def pairs(value: int, query: str = "") -> page.Count:
    """``value`` pairs: the rows that ``query`` finds; without a query, all rows."""
    return page.Count(int(value), f"len(ledger.query({query!r}))" if query else "len(ledger)")


def images(value: int, query: str) -> page.Count:
    """``value`` images: the distinct keys among the pairs that ``query`` finds."""
    return page.Count(int(value), f'ledger.query({query!r})["key"].nunique()')


def among(column: str, values: Iterable[str]) -> str:
    """The query for rows whose column holds one of ``values``.

    >>> among("reason", ["duplicate"]), among("source", ["a", "b"])
    ("reason == 'duplicate'", "source in ['a', 'b']")
    """
    listed = [str(value) for value in values]
    return f"{column} == {listed[0]!r}" if len(listed) == 1 else f"{column} in {listed!r}"


def table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> Markup:
    """``page.table`` and, in a closed list below it, the expressions of its counts."""
    rows = [list(row) for row in rows]
    counts = [cell for row in rows for cell in row if isinstance(cell, page.Count)]
    return page.table(head, rows) + listing(counts)


def listing(counts: Iterable[page.Count]) -> Markup:
    """A closed list of the expressions, one per line with its result."""
    lines = dict.fromkeys(f"{count.expression}  # {count.value}" for count in counts)
    body = Markup("<pre>{}</pre>").format("\n".join(lines))
    return page.details("The queries behind these numbers", body)


def loading(curate_dir: Path) -> Markup:
    """The Python code that loads the ledger for the expressions."""
    lines = (
        "import pandas as pd",
        "",
        f'ledger = pd.read_parquet("{curate_dir.as_posix()}/ledger")',
    )
    return Markup("<pre>{}</pre>").format("\n".join(lines))
