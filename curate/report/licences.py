"""The section on licences: how many pairs came in and were kept under each, as the source states."""

from __future__ import annotations

import pandas as pd
from markupsafe import Markup

from curate.report import counts, licence, page

_MOST = 20


def section(ledger: pd.DataFrame) -> Markup:
    """Pairs in and pairs kept by licence; pairs without one count as unknown."""
    if not any(name in ledger for name in licence.COLUMNS):
        everything = [("unknown", len(ledger), int(ledger["kept"].sum()), "")]
        note = page.paragraph("The source states no licences.")
        return note + _table(everything)
    names = licence.licence_of(ledger)
    all_of, kept = names.value_counts(), names[ledger["kept"]].value_counts()
    named = [name for name in all_of.index if name]
    listed = named[:_MOST]
    rows = [(n, all_of[n], kept.get(n, 0), licence.query(ledger.columns, [n])) for n in listed]
    unknown = licence.unknown_query(ledger.columns)
    rows.append(("unknown", all_of.get("", 0), kept.get("", 0), unknown))
    rest = named[_MOST:]
    if rest:
        query = f"not {unknown} and not {licence.query(ledger.columns, listed)}"
        counted = (all_of[rest].sum(), kept.reindex(rest).fillna(0).sum())
        rows.append((f"{len(rest)} rarer licences", *counted, query))
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
