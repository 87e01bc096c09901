"""The sections of example pairs: around the cut, highest and lowest similarity, and by reason."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
from markupsafe import Markup

from curate.decide.rule_runner import DUPLICATE
from curate.decide.stage import Verdicts
from curate.filters.similarity import NAME as SIMILARITY
from curate.report import counts, page
from curate.report.counts import among
from curate.report.not_fetched import ELSEWHERE, are_in
from curate.report.pictures import Pictures
from curate.run.ledger import UNREADABLE

AROUND, EXTREME, OF_REASON, REASONS, UNREADABLE_SHOWN = 12, 12, 6, 10, 20
_CAPTIONS = 8  # captions of one image that may score next to each other; one of them is shown
_ELSEWHERE = (SIMILARITY, DUPLICATE.name, UNREADABLE)  # rules whose pairs have their own sheets


def around_cut(verdicts: Verdicts, pictures: Pictures) -> Iterator[page.Section]:
    """Pairs just above and just below the cut; nothing where there is no cut."""
    ledger, similarity = verdicts.ledger, verdicts.ledger["clip_similarity"]
    if verdicts.cut is None:
        return
    kept = similarity[ledger["kept"] & (similarity >= np.float32(verdicts.cut))]
    cut = similarity[ledger["rule"] == SIMILARITY]
    for title, anchor, found in (
        ("Just above the cut: kept", "above", kept.nsmallest(AROUND * _CAPTIONS)),
        ("Just below the cut: dropped", "below", cut.nlargest(AROUND * _CAPTIONS)),
    ):
        if len(found):
            yield page.Section(title, anchor, pictures.sheet(_images(ledger, found, AROUND)))


def extremes(verdicts: Verdicts, pictures: Pictures) -> Iterator[page.Section]:
    """The pairs of highest and lowest similarity, kept or dropped."""
    ledger, similarity = verdicts.ledger, verdicts.ledger["clip_similarity"].dropna()
    for title, anchor, found in (
        ("Highest similarity", "best", similarity.nlargest(EXTREME * _CAPTIONS)),
        ("Lowest similarity", "worst", similarity.nsmallest(EXTREME * _CAPTIONS)),
    ):
        if len(found):
            yield page.Section(title, anchor, pictures.sheet(_images(ledger, found, EXTREME)))


def by_reason(verdicts: Verdicts, pictures: Pictures) -> Iterator[page.Section]:
    """A few pairs for each of the most frequent reasons, spread over the input."""
    shown_here = ~verdicts.ledger["rule"].isin(["", *_ELSEWHERE])
    sizes = verdicts.ledger.loc[shown_here, "reason"].value_counts()
    parts = [
        _reason(str(reason), int(size), verdicts.ledger, pictures)
        for reason, size in sizes.head(REASONS).items()
    ]
    if len(sizes) > REASONS:
        parts.append(
            page.paragraph(f"{len(sizes) - REASONS} rarer reasons are in the ledger.", "note")
        )
    if parts:
        yield page.Section("Dropped by other rules", "reasons", Markup("").join(parts))


def unreadable(verdicts: Verdicts) -> Iterator[page.Section]:
    """A table of pairs whose image could not be read; for those not fetched see ``not_fetched``."""
    ledger = verdicts.ledger
    query = f"status == {UNREADABLE!r}"
    if are_in(ledger):
        query += f" and {ELSEWHERE}"
    rows = ledger.query(query).index
    if len(rows):
        total = Markup("The images of {} pairs could not be read, for example:").format(
            counts.pairs(len(rows), query)
        )
        columns = ["key", "caption", "reason"]
        shown = ledger.loc[_spread(rows, UNREADABLE_SHOWN), columns].to_numpy().tolist()
        body = page.paragraph(total) + page.table(columns, shown)
        yield page.Section("Unreadable", "unreadable", body)


def _images(ledger: pd.DataFrame, found: pd.Series, count: int) -> pd.DataFrame:
    """The first ``count`` pairs of ``found``, one per image."""
    return ledger.loc[found.index].drop_duplicates("key").head(count)


def _reason(reason: str, size: int, ledger: pd.DataFrame, pictures: Pictures) -> Markup:
    rows = ledger.index[ledger["reason"] == reason]
    count = Markup("{} pairs").format(counts.pairs(size, among("reason", [reason])))
    sheet = pictures.sheet(ledger.loc[_spread(rows, OF_REASON)])
    return page.heading(page.short_numbers(reason)) + page.paragraph(count, "note") + sheet


def _spread(rows: pd.Index, count: int) -> pd.Index:
    """At most ``count`` of the rows, evenly spaced."""
    return rows[np.linspace(0, len(rows) - 1, min(count, len(rows))).round().astype(int)]
