"""The section on pairs kept and dropped: by rule, by reason, by source."""

from __future__ import annotations

from typing import Any

from markupsafe import Markup

from curate.decide.stage import Verdicts
from curate.report import counts, page
from curate.report.counts import among
from curate.run.ledger import DROPPED, UNREADABLE
from curate.run.ledger_table import LedgerTable

READABLE = f"status != {UNREADABLE!r}"
_MOST_GROUPS, _MOST_REASONS = 12, 40


def section(verdicts: Verdicts, figures: dict[str, Any]) -> Markup:
    """The notes, tiles, chart and tables."""
    groups = (("source", "By source"), ("source_split", "By the source's own split"))
    parts = [
        *(
            page.paragraph(page.sentence(page.clean(note, 600)), "warning")
            for note in figures["notes"]
        ),
        _tiles(figures),
        page.figure(
            _chart(figures),
            "Pairs left after each rule, in order; rules that dropped none are not shown.",
            "bar chart of the pairs left after each rule",
        ),
        _rules(figures),
        page.details("Every reason", _reasons(figures)),
        *(
            page.heading(title) + _by_group(verdicts.ledger, column, figures)
            for column, title in groups
            if column in verdicts.ledger
        ),
    ]
    return Markup("").join(parts)


def _tiles(figures: dict[str, Any]) -> Markup:
    total, kept = figures["pairs_in"], figures["kept"]
    tiles = [
        (counts.pairs(total), "pairs in"),
        (counts.pairs(kept, "kept"), f"kept ({kept / total:.0%})"),
        (counts.pairs(figures[DROPPED], f"status == {DROPPED!r}"), "dropped"),
        (counts.pairs(figures[UNREADABLE], f"status == {UNREADABLE!r}"), "unreadable"),
        *(
            (counts.images(number, f"kept and {among('split', [side])}"), f"images in {side}")
            for side, number in figures["samples"].items()
        ),
    ]
    return page.tiles(tiles) + counts.listing(count for count, _ in tiles)


def _chart(figures: dict[str, Any]) -> Markup:
    rules = [rule for rule in figures["rules"] if rule["dropped"]]
    names = ["pairs in", *(rule["rule"] for rule in rules)]
    left = [figures["pairs_in"], *(rule["left"] for rule in rules)]
    dropped = [0, *(rule["dropped"] for rule in rules)]
    drawing, axes = page.subplots(7.5, 0.42 * len(names) + 0.9)
    names = [page.clean(name, 48).replace("$", r"\$") for name in names]  # not as mathematics
    axes.barh(names, left, color=page.BLUE, label="left")
    axes.barh(names, dropped, left=left, color=page.ORANGE, label="dropped by this rule")
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("pairs")
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2)
    return page.svg(drawing)


def _rules(figures: dict[str, Any]) -> Markup:
    rows, applied = [], list[str]()
    for rule in figures["rules"]:
        applied.append(rule["rule"])
        dropped = counts.pairs(rule["dropped"], among("rule", [rule["rule"]]))
        left = counts.pairs(rule["left"], f"rule not in {applied!r}")
        rows.append([rule["rule"], dropped, left])
    return counts.table(["rule", "pairs dropped", "pairs left"], rows)


def _reasons(figures: dict[str, Any]) -> Markup:
    listed = list(figures["reasons"].items())[:_MOST_REASONS]
    rows = [
        [page.short_numbers(reason), counts.pairs(n, among("reason", [reason]))]
        for reason, n in listed
    ]
    rest = len(figures["reasons"]) - len(listed)
    more = page.paragraph(f"{rest} rarer reasons are in the ledger.", "note") if rest else ""
    return counts.table(["reason", "pairs"], rows) + more


def _by_group(ledger: LedgerTable, column: str, figures: dict[str, Any]) -> Markup:
    """A row for each of the largest groups, with a column for each rule that dropped pairs."""
    group = f"coalesce({ledger.column(column)}::VARCHAR, '')"
    [(groups,)] = ledger.tuples(f"SELECT count(DISTINCT {group}) FROM ledger")
    largest = ledger.tuples(
        f"SELECT {group} AS name, count(*) AS size FROM ledger GROUP BY name "
        f"ORDER BY size DESC, name LIMIT {_MOST_GROUPS}"
    )
    tally = {
        (name, rule): count
        for name, rule, count in ledger.tuples(
            f"SELECT {group} AS name, rule, count(*) FROM ledger "
            "WHERE name IN (SELECT unnest(?::VARCHAR[])) GROUP BY name, rule",
            [name for name, _ in largest],
        )
    }
    dropping = [rule["rule"] for rule in figures["rules"] if rule["dropped"]]
    rows = []
    for name, size in largest:
        query, kept = _named(column, name), tally.get((name, ""), 0)
        rows.append(
            [
                name or "(none)",
                counts.pairs(size, query),
                counts.pairs(kept, f"{query} and kept"),
                f"{kept / size:.1%}",
                *(
                    counts.pairs(tally.get((name, rule), 0), f"{query} and {among('rule', [rule])}")
                    for rule in dropping
                ),
            ]
        )
    rest = groups - len(rows)
    more = page.paragraph(f"{rest} smaller groups are in the ledger.", "note") if rest else ""
    return counts.table([column, "pairs in", "kept", "share kept", *dropping], rows) + more


def _named(column: str, name: str) -> str:
    return among(column, [name]) if name else f"({column}.isna() or {column} == '')"
