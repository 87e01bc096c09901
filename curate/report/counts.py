"""Numbers of pairs beside the expression that gives them from the ledger, for readers to check."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from curate.report import page


def pairs(value: int, query: str = "") -> page.Count:
    """``value`` pairs, which is how many ``query`` finds; without a query all of them."""
    return page.Count(int(value), f"len(ledger.query({query!r}))" if query else "len(ledger)")


def images(value: int, query: str) -> page.Count:
    """``value`` different images among the pairs that ``query`` finds."""
    return page.Count(int(value), f'ledger.query({query!r})["key"].nunique()')


def among(column: str, values: Iterable[str]) -> str:
    """The query for one of some texts in a column.

    >>> among("reason", ["duplicate"]), among("source", ["a", "b"])
    ("reason == 'duplicate'", "source in ['a', 'b']")
    """
    listed = [str(value) for value in values]
    return f"{column} == {listed[0]!r}" if len(listed) == 1 else f"{column} in {listed!r}"


def table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> Markup:
    """``page.table`` and, folded away below it, the expressions of its counts."""
    rows = [list(row) for row in rows]
    counts = [cell for row in rows for cell in row if isinstance(cell, page.Count)]
    return page.table(head, rows) + listing(counts)


def listing(counts: Iterable[page.Count]) -> Markup:
    """The expressions, folded away, one on a line with what it gives."""
    lines = dict.fromkeys(f"{count.expression}  # {count.value}" for count in counts)
    body = Markup("<pre>{}</pre>").format("\n".join(lines))
    return page.details("The queries behind these numbers", body)


def loading(curate_dir: Path) -> Markup:
    """What to paste before any of the expressions."""
    lines = (
        "import pandas as pd",
        "",
        f'ledger = pd.read_parquet("{curate_dir.as_posix()}/ledger")',
    )
    return Markup("<pre>{}</pre>").format("\n".join(lines))
