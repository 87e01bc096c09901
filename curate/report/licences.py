"""Under which licences the pairs are, so far as their source says."""

from __future__ import annotations

import pandas as pd
from markupsafe import Markup

from curate import page
from curate.report import counts
from curate.report.counts import among

COLUMNS = ("licence", "license", "LICENSE")
UNKNOWN = ("", "?", "unknown")  # LAION writes "?"
_MOST = 20


def section(ledger: pd.DataFrame) -> Markup:
    """Pairs in and pairs kept by licence; those without one are counted as unknown."""
    column = next((name for name in COLUMNS if name in ledger), None)
    if column is None:
        everything = [("unknown", len(ledger), int(ledger["kept"].sum()), "")]
        note = page.paragraph("The source names no licence.")
        return note + _table(everything)
    names = ledger[column].fillna("").astype(str)
    names = names.mask(names.isin(UNKNOWN), "")
    all_of, kept = names.value_counts(), names[ledger["kept"]].value_counts()
    named = [name for name in all_of.index if name]
    listed = named[:_MOST]
    rows = [(n, all_of[n], kept.get(n, 0), among(column, [n])) for n in listed]
    unknown = f"({column}.isna() or {among(column, UNKNOWN)})"
    rows.append(("unknown", all_of.get("", 0), kept.get("", 0), unknown))
    rest = named[_MOST:]
    if rest:
        query = f"not {unknown} and not ({among(column, listed)})"
        counted = (all_of[rest].sum(), kept.reindex(rest).fillna(0).sum())
        rows.append((f"{len(rest)} rarer ones", *counted, query))
    return _table(rows)


def _table(rows: list[tuple[str, int, int, str]]) -> Markup:
    cells = [
        [
            name,
            counts.pairs(all_of, query),
            counts.pairs(kept, f"{query} and kept" if query else "kept"),
        ]
        for name, all_of, kept, query in rows
    ]
    return counts.table(["licence", "pairs in", "kept"], cells)
