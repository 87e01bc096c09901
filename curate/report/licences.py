"""The section on licences: how many pairs came in and were kept under each, as the source states."""

from __future__ import annotations

from markupsafe import Markup

from curate.report import counts, licence, page
from curate.run.ledger_table import LedgerTable

_MOST = 20


def section(ledger: LedgerTable) -> Markup:
    """Pairs in and pairs kept by licence; pairs without one count as unknown."""
    if not any(name in ledger for name in licence.COLUMNS):
        everything = [("unknown", ledger.pairs, ledger.count("kept"), "")]
        note = page.paragraph("The source states no licences.")
        return note + _table(everything)
    name = licence.in_sql(ledger)
    listed = ledger.tuples(
        f"SELECT {name} AS name, count(*), count(*) FILTER (kept) FROM ledger WHERE name != '' "
        f"GROUP BY name ORDER BY count(*) DESC, min(row) LIMIT {_MOST}"
    )
    different, stated, stated_kept = ledger.tuples(
        f"SELECT count(DISTINCT {name}), count(*), count(*) FILTER (kept) FROM ledger WHERE {name} != ''"
    )[0]
    rows = [(*each, licence.query(ledger.columns, [each[0]])) for each in listed]
    unknown = licence.unknown_query(ledger.columns)
    without = (ledger.pairs - stated, ledger.count("kept") - stated_kept)
    rows.append(("unknown", *without, unknown))
    if different > len(listed):
        names = [name for name, _, _ in listed]
        query = f"not {unknown} and not {licence.query(ledger.columns, names)}"
        rest = (stated - sum(n for _, n, _ in listed), stated_kept - sum(n for _, _, n in listed))
        rows.append((f"{different - len(listed)} rarer licences", *rest, query))
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
