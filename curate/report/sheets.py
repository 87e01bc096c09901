"""Which pairs are shown: around the cut, the extremes, and some of each reason."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
from markupsafe import Markup

from curate.decide.runner import DUPLICATE
from curate.decide.stage import Verdicts
from curate.filters.similarity import NAME as SIMILARITY
from curate.report import counts, page
from curate.report.counts import among
from curate.report.pictures import Pictures
from curate.run.ledger import UNREADABLE

AROUND, EXTREME, OF_REASON, REASONS, UNREADABLE_SHOWN = 12, 12, 6, 10, 20
_CAPTIONS = 8  # of an image that may follow one another, of which one is shown
_ELSEWHERE = (SIMILARITY, DUPLICATE.name, UNREADABLE)  # rules whose pairs have their own sheets


def around_cut(verdicts: Verdicts, pictures: Pictures) -> Iterator[page.Section]:
    """Just above and just below the cut, where there is one."""
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
    """The most and the least similar pairs of all, whatever became of them."""
    ledger, similarity = verdicts.ledger, verdicts.ledger["clip_similarity"].dropna()
    for title, anchor, found in (
        ("Most similar", "best", similarity.nlargest(EXTREME * _CAPTIONS)),
        ("Least similar", "worst", similarity.nsmallest(EXTREME * _CAPTIONS)),
    ):
        if len(found):
            yield page.Section(title, anchor, pictures.sheet(_images(ledger, found, EXTREME)))


def by_reason(verdicts: Verdicts, pictures: Pictures) -> Iterator[page.Section]:
    """A few pairs of each of the commonest reasons, spread over the input."""
    shown_here = ~verdicts.ledger["rule"].isin(["", *_ELSEWHERE])
    sizes = verdicts.ledger.loc[shown_here, "reason"].value_counts()
    parts = [
        _reason(str(reason), int(size), verdicts.ledger, pictures)
        for reason, size in sizes.head(REASONS).items()
    ]
    if len(sizes) > REASONS:
        parts.append(
            page.paragraph(f"{len(sizes) - REASONS} rarer reasons: see the ledger.", "note")
        )
    if parts:
        yield page.Section("Dropped by other rules", "reasons", Markup("").join(parts))


def unreadable(verdicts: Verdicts) -> Iterator[page.Section]:
    """The images without a picture, as text."""
    ledger = verdicts.ledger
    rows = ledger.index[ledger["status"] == UNREADABLE]
    if len(rows):
        total = Markup("{} pairs, such as these:").format(
            counts.pairs(len(rows), f"status == {UNREADABLE!r}")
        )
        columns = ["key", "caption", "reason"]
        shown = ledger.loc[_spread(rows, UNREADABLE_SHOWN), columns].to_numpy().tolist()
        body = page.paragraph(total) + page.table(columns, shown)
        yield page.Section("Unreadable", "unreadable", body)


def _images(ledger: pd.DataFrame, found: pd.Series, count: int) -> pd.DataFrame:
    """The first pairs of ``found``, one for each image."""
    return ledger.loc[found.index].drop_duplicates("key").head(count)


def _reason(reason: str, size: int, ledger: pd.DataFrame, pictures: Pictures) -> Markup:
    rows = ledger.index[ledger["reason"] == reason]
    count = Markup("{} pairs").format(counts.pairs(size, among("reason", [reason])))
    sheet = pictures.sheet(ledger.loc[_spread(rows, OF_REASON)])
    return page.heading(reason) + page.paragraph(count, "note") + sheet


def _spread(rows: pd.Index, count: int) -> pd.Index:
    """At most ``count`` of the rows, evenly apart."""
    return rows[np.linspace(0, len(rows) - 1, min(count, len(rows))).round().astype(int)]
