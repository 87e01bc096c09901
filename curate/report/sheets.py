"""The sections of example pairs: around the cut, highest and lowest similarity, and by reason."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
from markupsafe import Markup

from curate.decide.stage import Verdicts
from curate.filters.duplicates import DUPLICATE
from curate.filters.similarity import NAME as SIMILARITY
from curate.report import counts, page
from curate.report.counts import among
from curate.report.not_fetched import ELSEWHERE, UNFETCHED, are_in
from curate.report.pictures import Pictures
from curate.run.database import quoted
from curate.run.ledger import UNREADABLE
from curate.run.ledger_table import LedgerTable

AROUND, EXTREME, OF_REASON, REASONS, UNREADABLE_SHOWN = 12, 12, 6, 10, 20
_STRETCH = 100_000  # rows
_CAPTIONS = 8  # captions of one image that may score next to each other; one of them is shown
_ELSEWHERE = (SIMILARITY, DUPLICATE.name, UNREADABLE)  # rules whose pairs have their own sheets


def around_cut(verdicts: Verdicts, pictures: Pictures) -> Iterator[page.Section]:
    """Pairs just above and just below the cut; nothing where there is no cut."""
    if verdicts.cut is None:
        return
    lowest = float(np.float32(verdicts.cut))
    kept, cut = f"kept AND clip_similarity >= {lowest!r}", f"rule = {quoted(SIMILARITY)}"
    for title, anchor, condition, order in (
        ("Just above the cut: kept", "above", kept, "ASC"),
        ("Just below the cut: dropped", "below", cut, "DESC"),
    ):
        if len(found := _images(verdicts.ledger, condition, order, AROUND)):
            yield page.Section(title, anchor, pictures.sheet(found))


def extremes(verdicts: Verdicts, pictures: Pictures) -> Iterator[page.Section]:
    """The pairs of highest and lowest similarity, kept or dropped."""
    for title, anchor, order in (
        ("Highest similarity", "best", "DESC"),
        ("Lowest similarity", "worst", "ASC"),
    ):
        if len(found := _images(verdicts.ledger, "true", order, EXTREME)):
            yield page.Section(title, anchor, pictures.sheet(found))


def by_reason(verdicts: Verdicts, pictures: Pictures) -> Iterator[page.Section]:
    """A few pairs for each of the most frequent reasons, spread over the input."""
    ledger, elsewhere = verdicts.ledger, ", ".join(map(quoted, ("", *_ELSEWHERE)))
    shown_here = f"rule NOT IN ({elsewhere})"
    reasons = ledger.value(f"SELECT count(DISTINCT reason) FROM ledger WHERE {shown_here}")
    largest = ledger.tuples(
        f"SELECT reason, count(*) FROM ledger WHERE {shown_here} AND reason IS NOT NULL "
        f"GROUP BY reason ORDER BY count(*) DESC, min(row) LIMIT {REASONS}"
    )
    parts = [_reason(reason, size, ledger, pictures) for reason, size in largest]
    if reasons > REASONS:
        rarer = f"{reasons - REASONS} rarer reasons are in the ledger."
        parts.append(page.paragraph(rarer, "note"))
    if parts:
        yield page.Section("Dropped by other rules", "reasons", Markup("").join(parts))


def unreadable(verdicts: Verdicts) -> Iterator[page.Section]:
    """A table of pairs whose image could not be read; for those not fetched see ``not_fetched``."""
    ledger = verdicts.ledger
    query, condition = f"status == {UNREADABLE!r}", f"status = {quoted(UNREADABLE)}"
    if are_in(ledger):
        query += f" and {ELSEWHERE}"
        condition += f" AND NOT {UNFETCHED}"
    if pairs := ledger.count(condition):
        total = Markup("The images of {} pairs could not be read, for example:").format(
            counts.pairs(pairs, query)
        )
        columns = ["key", "caption", "reason"]
        some = ledger.rows(_spread(ledger, condition, pairs, UNREADABLE_SHOWN))
        body = page.paragraph(total) + page.table(columns, some[columns].to_numpy().tolist())
        yield page.Section("Unreadable", "unreadable", body)


def _images(ledger: LedgerTable, condition: str, order: str, count: int) -> pd.DataFrame:
    """The first ``count`` pairs by similarity, one per image; of equal ones those that came in first."""
    found = ledger.tuples(
        f"SELECT row FROM ledger WHERE clip_similarity IS NOT NULL AND {condition} "
        f"ORDER BY clip_similarity {order}, row LIMIT {count * _CAPTIONS}"
    )
    rows = ledger.rows([row for (row,) in found])
    return rows.drop_duplicates("key").head(count)


def _reason(reason: str, size: int, ledger: LedgerTable, pictures: Pictures) -> Markup:
    count = Markup("{} pairs").format(counts.pairs(size, among("reason", [reason])))
    condition = f"reason = {quoted(reason)}"
    some = _spread(ledger, condition, ledger.count(condition), OF_REASON)
    sheet = pictures.sheet(ledger.rows(some))
    return page.heading(page.short_numbers(reason)) + page.paragraph(count, "note") + sheet


def _spread(ledger: LedgerTable, condition: str, pairs: int, count: int) -> list[int]:
    """At most ``count`` of the ``pairs`` rows that meet a condition, evenly spaced among these.

    Only how many there are in each stretch of the input is in memory, and the stretches that hold the wanted ones.
    """
    stretches = ledger.tuples(
        f"SELECT row // {_STRETCH} AS stretch, count(*) FROM ledger WHERE {condition} "
        "GROUP BY stretch ORDER BY stretch"
    )
    ends = np.cumsum([rows for _, rows in stretches])
    wanted = []
    for place in np.linspace(0, pairs - 1, min(count, pairs)).round().astype(int):
        at = int(np.searchsorted(ends, place, "right"))
        stretch, rows = stretches[at]
        wanted.append((stretch, int(place - ends[at] + rows + 1)))
    among = ", ".join(str(stretch) for stretch in dict.fromkeys(stretch for stretch, _ in wanted))
    found = ledger.tuples(
        f"SELECT row FROM (SELECT row, row // {_STRETCH} AS stretch, "
        f"row_number() OVER (PARTITION BY stretch ORDER BY row) AS number "
        f"FROM ledger WHERE {condition} AND stretch IN ({among})) "
        f"WHERE (stretch, number) IN ({', '.join(map(str, wanted))}) ORDER BY row"
    )
    return [row for (row,) in found]
