"""The section on drop rates by kind of pair: biases of the rules that nobody configured."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from curate.decide.stage import Verdicts
from curate.filters.similarity import NAME as SIMILARITY
from curate.report import counts, page
from curate.report.counts import among
from curate.report.funnel import READABLE
from curate.report.similarity import reaching
from curate.run.database import quoted
from curate.run.intervals import shown, wilson
from curate.run.ledger import UNREADABLE
from curate.run.ledger_table import LedgerTable

CLEARLY = 1.1  # times the rate of all pairs; below that, even a certain difference hardly matters
_MOST_NAMES = 8

_WORDS, _DIGITS = "counted_words", "has_digits"
# White space as Python's regular expressions have it; for DuckDB's it is that of ASCII.
_SPACE = r"\x09-\x0d\x1c-\x20\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000}"
_COUNT_WORDS = f"len(regexp_extract_all(caption, '[^{_SPACE}]+'))"
_HAS_DIGITS = "regexp_matches(caption, '[0-9]')"


@dataclass(frozen=True, slots=True)
class Bucket:
    """A kind of pair: what is measured, the range or value, its query, and the same condition in SQL."""

    measure: str
    label: str
    query: str
    condition: str


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
    kinds = list(buckets(ledger))
    any_rule = Judged(READABLE, f"status != {quoted(UNREADABLE)}", "reason != ''", "reason != ''")
    everything = _of("any rule", rates(ledger, kinds, any_rule))
    if not ledger.count("rule = ?", SIMILARITY):
        return everything
    reached = reaching(verdicts)
    by_cut = Judged(
        f"{among('rule', reached)} and clip_similarity.notna()",
        f"rule IN ({', '.join(map(quoted, reached))}) AND clip_similarity IS NOT NULL",
        among("rule", [SIMILARITY]),
        f"rule = {quoted(SIMILARITY)}",
    )
    found = rates(ledger, kinds, by_cut)
    return _of("the similarity cut", found) + page.details("Dropped by any rule", everything)


def buckets(ledger: LedgerTable) -> Iterator[Bucket]:
    """The kinds of pairs that the ledger's columns allow."""
    for column in ("source", "language"):
        if column in ledger and ledger.is_text(column):
            for name in _names(ledger, column):
                is_named = f"{ledger.column(column)} = {quoted(name)}"
                yield Bucket(column, name, among(column, [name]), is_named)
    yield from _words((1, 3, 6, 11, 21, 41))
    digits = "caption.str.contains('[0-9]')"
    yield Bucket("digits in the caption", "some", digits, _DIGITS)
    yield Bucket(
        "digits in the caption", "none", f"not {digits}", f"NOT coalesce({_DIGITS}, false)"
    )
    # Pictures without pixels have no shape; DuckDB takes their NaN for more than any number.
    shape = "CASE WHEN height > 0 THEN width::DOUBLE / height END"
    yield from _ranges("width / height", "width / height", shape, "DOUBLE", (0, 0.5, 0.9, 1.1, 2))
    yield from _sides((1, 128, 256, 512, 1024))
    if "text_share" in ledger:
        share, kind = ledger.column("text_share"), ledger.type_of("text_share")
        kind = "FLOAT" if kind == "FLOAT" else "DOUBLE"
        starts = (0, 0.01, 0.05, 0.2)
        yield from _ranges("share of text in the image", "text_share", share, kind, starts)


def _names(ledger: LedgerTable, column: str) -> list[str]:
    """The most frequent texts of a column but ""; of equally frequent ones those that came in first."""
    found = ledger.tuples(
        f"SELECT coalesce({ledger.column(column)}, '') AS name FROM ledger "
        f"GROUP BY name ORDER BY count(*) DESC, min(row) LIMIT {_MOST_NAMES}"
    )
    return [name for (name,) in found if name]


def _words(starts: tuple[int, ...]) -> Iterator[Bucket]:
    for start, end in zip(starts, (*starts[1:], None), strict=True):
        count, measure = r"caption.str.count('\\S+')", "words in the caption"
        if end is None:
            least = f"{_WORDS} >= {start}"
            yield Bucket(measure, f"{start} and more", f"{count} >= {start}", least)
        else:
            query = f"{count}.between({start}, {end - 1})"
            between = f"{_WORDS} BETWEEN {start} AND {end - 1}"
            yield Bucket(measure, f"{start}–{end - 1}", query, between)


def _ranges(
    measure: str, expression: str, in_sql: str, kind: str, starts: tuple[float, ...]
) -> Iterator[Bucket]:
    """From each start up to the next, exclusive, as numbers of the type ``kind``: pandas compares so as well."""
    for start, end in zip(starts, (*starts[1:], None), strict=True):
        query, least = f"{expression} >= {start}", f"{in_sql} >= {start}e0::{kind}"
        if end is None:
            yield Bucket(measure, f"{start:g} and more", query, least)
        else:
            query = f"{query} and {expression} < {end}"
            yield Bucket(
                measure, f"{start:g}–{end:g}", query, f"{least} AND {in_sql} < {end}e0::{kind}"
            )


def _sides(starts: tuple[int, ...]) -> Iterator[Bucket]:
    for start, end in zip(starts, (*starts[1:], None), strict=True):
        least = f"width >= {start} and height >= {start}"
        if end is None:
            yield Bucket("shorter side, px", f"{start} and more", least, least)
        else:
            query = f"{least} and (width < {end} or height < {end})"
            yield Bucket("shorter side, px", f"{start}–{end - 1}", query, query)


@dataclass(frozen=True, slots=True)
class Judged:
    """Pairs that the rules checked and those that they dropped: queries, and the same conditions in SQL."""

    checked: str
    is_checked: str
    dropped: str
    is_dropped: str


def rates(ledger: LedgerTable, kinds: Sequence[Bucket], judged: Judged) -> list[DropRate]:
    """The rate of all pairs, then of each bucket; empty buckets and measures with one are left out.

    All are counted while the ledger is read once.
    """
    everything = Bucket("all", "", "", "true")
    counted = ", ".join(
        f"count(*) FILTER ({bucket.condition}), count(*) FILTER ({judged.is_dropped} AND ({bucket.condition}))"
        for bucket in (everything, *kinds)
    )
    [numbers] = ledger.tuples(
        f"SELECT {counted} FROM (SELECT *, {_COUNT_WORDS} AS {_WORDS}, {_HAS_DIGITS} AS {_DIGITS} "
        f"FROM ledger WHERE {judged.is_checked})"
    )
    found = []
    for bucket, checked, dropped in zip(
        (everything, *kinds), numbers[::2], numbers[1::2], strict=True
    ):
        within = f"{judged.checked} and ({bucket.query})" if bucket.query else judged.checked
        if checked or bucket is everything:
            count = counts.pairs(checked, within)
            found.append(
                DropRate(bucket, count, counts.pairs(dropped, f"{within} and {judged.dropped}"))
            )
    sizes = Counter(rate.bucket.measure for rate in found)
    return [found[0], *(rate for rate in found[1:] if sizes[rate.bucket.measure] > 1)]


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
