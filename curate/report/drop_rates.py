"""What the filter takes away by kind of pair: what it is biased against without having been told."""

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

CLEARLY = 1.1  # times the share of the whole; below, a difference may be certain and yet not matter
_MOST_NAMES = 8


@dataclass(frozen=True, slots=True)
class Bucket:
    """A kind of pair: what is measured, the range or value, and the query for it."""

    measure: str
    label: str
    query: str


@dataclass(frozen=True, slots=True)
class Loss:
    """How many pairs of a bucket a filter saw and how many it took, each with its query."""

    bucket: Bucket
    seen: page.Count
    lost: page.Count

    @property
    def share(self) -> float:
        """Lost of seen."""
        return self.lost.value / self.seen.value


def section(verdicts: Verdicts) -> Markup:
    """The losses to the similarity cut, where it took any, and those to all rules together."""
    ledger = verdicts.ledger
    kinds = [(bucket, mask(ledger, bucket.query)) for bucket in buckets(ledger)]
    everything = _of("any rule", losses(ledger, kinds, READABLE, "reason != ''"))
    if not (ledger["rule"] == SIMILARITY).any():
        return everything
    seen = f"{among('rule', reaching(verdicts))} and clip_similarity.notna()"
    cut = _of("the similarity cut", losses(ledger, kinds, seen, among("rule", [SIMILARITY])))
    return cut + page.details("Lost to any rule", everything)


def buckets(ledger: pd.DataFrame) -> Iterator[Bucket]:
    """The kinds that the columns of the ledger can tell."""
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
        yield from _ranges("share of text in the picture", "text_share", (0, 0.01, 0.05, 0.2))


def _words(starts: tuple[int, ...]) -> Iterator[Bucket]:
    for start, end in zip(starts, (*starts[1:], None), strict=True):
        count, measure = r"caption.str.count('\\S+')", "words of the caption"
        if end is None:
            yield Bucket(measure, f"{start} and more", f"{count} >= {start}")
        else:
            yield Bucket(measure, f"{start}–{end - 1}", f"{count}.between({start}, {end - 1})")


def _ranges(measure: str, expression: str, starts: tuple[float, ...]) -> Iterator[Bucket]:
    """From each start up to the next, which is not part of it."""
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


def losses(
    ledger: pd.DataFrame, kinds: Sequence[tuple[Bucket, np.ndarray]], seen: str, lost: str
) -> list[Loss]:
    """The whole, then the buckets that hold pairs, of measures that tell pairs apart.

    Args:
        ledger: all rows.
        kinds: of ``buckets``, each with its rows as a mask (N,).
        seen: the query for the pairs that the filter saw.
        lost: for those that it took.
    """
    saw, took = mask(ledger, seen), mask(ledger, lost)
    whole = Bucket("all", "", "")
    found = [Loss(whole, counts.pairs(saw.sum(), seen), _lost(saw & took, seen, lost))]
    for bucket, rows in kinds:
        within, inside = saw & rows, f"{seen} and ({bucket.query})"
        if within.any():
            count = counts.pairs(within.sum(), inside)
            found.append(Loss(bucket, count, _lost(within & took, inside, lost)))
    sizes = Counter(loss.bucket.measure for loss in found)
    return [found[0], *(loss for loss in found[1:] if sizes[loss.bucket.measure] > 1)]


def _lost(rows: np.ndarray, seen: str, lost: str) -> page.Count:
    return counts.pairs(rows.sum(), f"{seen} and {lost}")


def mask(ledger: pd.DataFrame, query: str) -> np.ndarray:
    """The rows that a query finds, (N,) bool."""
    return np.asarray(ledger.eval(query), dtype=bool)


def worst(found: list[Loss]) -> list[Loss]:
    """The buckets that lose clearly more than the pairs outside them.

    Of these the 95 % intervals lie wholly above (chance does that to one bucket in 300), and the
    share is ``CLEARLY`` times that of the whole, which comes first in ``found``.
    """
    whole, rest = found[0], found[1:]
    return [
        loss
        for loss in rest
        if loss.share > CLEARLY * whole.share
        and wilson(loss.lost.value, loss.seen.value)[0]
        > wilson(whole.lost.value - loss.lost.value, whole.seen.value - loss.seen.value)[1]
    ]


def _of(rule: str, found: list[Loss]) -> Markup:
    title = page.heading(f"Lost to {rule}")
    if not found[0].seen.value:
        return title + page.paragraph("No pair came this far.")
    marked = worst(found)
    rows = [
        [
            loss.bucket.measure,
            Markup("{}").format(page.quote(loss.bucket.label, 40)),
            loss.seen,
            loss.lost,
            shown(loss.lost.value, loss.seen.value),
            page.badge("warn", "loses more") if loss in marked else Markup(""),
        ]
        for loss in found
    ]
    table = counts.table(["kind", "", "pairs", "lost", "share [95 %]", ""], rows)
    caption = f"Share of the pairs of each kind that {rule} took, with 95 % intervals; the line is the whole."
    return Markup("").join(
        [
            title,
            page.paragraph(_sentence(marked, found[0])),
            page.figure(_chart(found, marked), caption, "shares lost by kind of pair"),
            page.details("The numbers", table),
        ]
    )


def _sentence(marked: list[Loss], whole: Loss) -> str:
    if not marked:
        return (
            f"No kind of pair loses clearly more than the others; of all, {whole.share:.1%} went."
        )
    named = "; ".join(
        f"{loss.bucket.measure} {loss.bucket.label} ({loss.share:.1%})" for loss in marked
    )
    return f"Of all pairs {whole.share:.1%} went. Clearly more than of the others: {page.clean(named, 600)}."


def _chart(found: list[Loss], marked: list[Loss]) -> Markup:
    whole, rest = found[0], found[1:] or found  # a single kind is drawn as the whole
    drawing, axes = page.subplots(7.5, 0.22 * len(rest) + 0.7)
    for place, loss in enumerate(rest):
        low, high = wilson(loss.lost.value, loss.seen.value)
        colour = page.VERMILLION if loss in marked else page.BLUE
        axes.plot([low, high], [place, place], color=colour, linewidth=1.2)
        axes.plot([loss.share], [place], "o", color=colour, markersize=4)
    axes.axvline(whole.share, color="black", linewidth=0.8)
    labels = [
        page.clean(f"{loss.bucket.measure}: {loss.bucket.label}".removesuffix(": "), 48)
        for loss in rest
    ]
    axes.set_yticks(range(len(rest)), [label.replace("$", r"\$") for label in labels])
    axes.set_ylim(len(rest) - 0.4, -0.6)
    axes.set_xlim(-0.01, 1.01)
    axes.xaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
    axes.set_xlabel("share lost")
    return page.svg(drawing)
