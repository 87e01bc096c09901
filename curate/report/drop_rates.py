"""The section on drop rates by kind of pair: biases of the rules that nobody configured."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from markupsafe import Markup

from curate.decide.stage import Verdicts
from curate.filters.similarity import NAME as SIMILARITY
from curate.report import counts, page
from curate.report.counts import among
from curate.report.funnel import READABLE
from curate.report.similarity import reaching
from curate.run.intervals import shown, wilson

CLEARLY = 1.1  # times the rate of all pairs; below that, even a certain difference hardly matters
_MOST_NAMES = 8


@dataclass(frozen=True, slots=True)
class Bucket:
    """A kind of pair: what is measured, the range or value, and its query."""

    measure: str
    label: str
    query: str


@dataclass(frozen=True, slots=True)
class DropRate:
    """How many pairs of a bucket the rules checked and how many they dropped, each with its query."""

    bucket: Bucket
    checked: page.Count
    dropped: page.Count

    @property
    def share(self) -> float:
        """The share of the checked pairs that was dropped."""
        return self.dropped.value / self.checked.value


def section(verdicts: Verdicts) -> Markup:
    """The drop rates of the similarity cut, if it dropped any pair, and those of all rules together."""
    ledger = verdicts.ledger
    kinds = [(bucket, mask(ledger, bucket.query)) for bucket in buckets(ledger)]
    everything = _of("any rule", rates(ledger, kinds, READABLE, "reason != ''"))
    if not (ledger["rule"] == SIMILARITY).any():
        return everything
    checked = f"{among('rule', reaching(verdicts))} and clip_similarity.notna()"
    found = rates(ledger, kinds, checked, among("rule", [SIMILARITY]))
    return _of("the similarity cut", found) + page.details("Dropped by any rule", everything)


def buckets(ledger: pd.DataFrame) -> Iterator[Bucket]:
    """The kinds of pairs that the ledger's columns allow."""
    for column in ("source", "language"):
        if column in ledger:
            names = ledger[column].fillna("").value_counts().index[:_MOST_NAMES]
            yield from (Bucket(column, n, among(column, [n])) for n in names if n)
    yield from _words((1, 3, 6, 11, 21, 41))
    digits = "caption.str.contains('[0-9]')"
    yield Bucket("digits in the caption", "some", digits)
    yield Bucket("digits in the caption", "none", f"not {digits}")
    yield from _ranges("width / height", "width / height", (0, 0.5, 0.9, 1.1, 2))
    yield from _sides((1, 128, 256, 512, 1024))
    if "text_share" in ledger:
        yield from _ranges("share of text in the image", "text_share", (0, 0.01, 0.05, 0.2))


def _words(starts: tuple[int, ...]) -> Iterator[Bucket]:
    for start, end in zip(starts, (*starts[1:], None), strict=True):
        count, measure = r"caption.str.count('\\S+')", "words in the caption"
        if end is None:
            yield Bucket(measure, f"{start} and more", f"{count} >= {start}")
        else:
            yield Bucket(measure, f"{start}–{end - 1}", f"{count}.between({start}, {end - 1})")


def _ranges(measure: str, expression: str, starts: tuple[float, ...]) -> Iterator[Bucket]:
    """From each start up to the next, exclusive."""
    for start, end in zip(starts, (*starts[1:], None), strict=True):
        query = f"{expression} >= {start}"
        if end is None:
            yield Bucket(measure, f"{start:g} and more", query)
        else:
            yield Bucket(measure, f"{start:g}–{end:g}", f"{query} and {expression} < {end}")


def _sides(starts: tuple[int, ...]) -> Iterator[Bucket]:
    for start, end in zip(starts, (*starts[1:], None), strict=True):
        least = f"width >= {start} and height >= {start}"
        if end is None:
            yield Bucket("shorter side, px", f"{start} and more", least)
        else:
            query = f"{least} and (width < {end} or height < {end})"
            yield Bucket("shorter side, px", f"{start}–{end - 1}", query)


def rates(
    ledger: pd.DataFrame, kinds: Sequence[tuple[Bucket, np.ndarray]], checked: str, dropped: str
) -> list[DropRate]:
    """The rate of all pairs, then of each bucket; empty buckets and measures with one are left out.

    Args:
        ledger: all rows.
        kinds: the ``buckets``, each with its rows as a mask (N,).
        checked: the query for the pairs that the rules checked.
        dropped: the query for those that they dropped.
    """
    is_checked, is_dropped = mask(ledger, checked), mask(ledger, dropped)
    count = counts.pairs(is_checked.sum(), checked)
    found = [
        DropRate(Bucket("all", "", ""), count, _dropped(is_checked & is_dropped, checked, dropped))
    ]
    for bucket, rows in kinds:
        within, inside = is_checked & rows, f"{checked} and ({bucket.query})"
        if within.any():
            count = counts.pairs(within.sum(), inside)
            found.append(DropRate(bucket, count, _dropped(within & is_dropped, inside, dropped)))
    sizes = Counter(rate.bucket.measure for rate in found)
    return [found[0], *(rate for rate in found[1:] if sizes[rate.bucket.measure] > 1)]


def _dropped(rows: np.ndarray, checked: str, dropped: str) -> page.Count:
    return counts.pairs(rows.sum(), f"{checked} and {dropped}")


def mask(ledger: pd.DataFrame, query: str) -> np.ndarray:
    """The rows that a query finds, (N,) bool."""
    return np.asarray(ledger.eval(query), dtype=bool)


def highest(found: list[DropRate]) -> list[DropRate]:
    """The buckets of which clearly more pairs are dropped than of the pairs outside them.

    The 95 % interval of such a bucket lies wholly above that of the other pairs (which chance alone
    does to one bucket in 300), and its rate is more than ``CLEARLY`` times that of all pairs, which
    come first in ``found``.
    """
    everything, rest = found[0], found[1:]
    return [
        rate
        for rate in rest
        if rate.share > CLEARLY * everything.share
        and wilson(rate.dropped.value, rate.checked.value)[0]
        > wilson(
            everything.dropped.value - rate.dropped.value,
            everything.checked.value - rate.checked.value,
        )[1]
    ]


def _of(rule: str, found: list[DropRate]) -> Markup:
    title = page.heading(f"Dropped by {rule}")
    if not found[0].checked.value:
        return title + page.paragraph("Earlier rules dropped all pairs.")
    marked = highest(found)
    rows = [
        [
            rate.bucket.measure,
            Markup("{}").format(page.quote(rate.bucket.label, 40)),
            rate.checked,
            rate.dropped,
            shown(rate.dropped.value, rate.checked.value),
            page.badge("warn", "higher") if rate in marked else Markup(""),
        ]
        for rate in found
    ]
    table = counts.table(["kind", "", "pairs", "dropped", "drop rate [95 %]", ""], rows)
    caption = (
        f"Share of the pairs of each kind that {rule} dropped, with 95 % intervals; the vertical line "
        "is the share over all kinds."
    )
    return Markup("").join(
        [
            title,
            page.paragraph(_sentence(marked, found[0])),
            page.figure(_chart(found, marked), caption, "drop rates by kind of pair"),
            page.details("The numbers", table),
        ]
    )


def _sentence(marked: list[DropRate], everything: DropRate) -> str:
    overall = f"Of {everything.checked.value:,} pairs checked, {everything.share:.1%} were dropped."
    if not marked:
        return f"{overall} No kind was dropped clearly more often than the others."
    named = "; ".join(
        f"{rate.bucket.measure} {rate.bucket.label} ({rate.share:.1%})" for rate in marked
    )
    return f"{overall} Dropped clearly more often than the others: {page.clean(named, 600)}."


def _chart(found: list[DropRate], marked: list[DropRate]) -> Markup:
    everything, rest = found[0], found[1:] or found  # without buckets, all pairs are the only row
    drawing, axes = page.subplots(7.5, 0.32 * len(rest) + 0.9)
    for row, rate in enumerate(rest):
        low, high = wilson(rate.dropped.value, rate.checked.value)
        colour = page.VERMILLION if rate in marked else page.BLUE
        axes.plot([low, high], [row, row], color=colour, linewidth=1.2)
        axes.plot([rate.share], [row], "o", color=colour, markersize=4)
    axes.axvline(everything.share, color="black", linewidth=0.8)
    labels = [
        page.clean(f"{rate.bucket.measure}: {rate.bucket.label}".removesuffix(": "), 48)
        for rate in rest
    ]
    axes.set_yticks(range(len(rest)), [label.replace("$", r"\$") for label in labels])
    axes.set_ylim(len(rest) - 0.4, -0.6)
    axes.set_xlim(-0.01, 1.01)
    axes.xaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
    axes.set_xlabel("drop rate")
    return page.svg(drawing)
