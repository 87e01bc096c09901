"""The section on similarity: the pairs against shuffled captions, the cut, and other cuts."""

from __future__ import annotations

from typing import Any

import numpy as np
from markupsafe import Markup

from curate.decide.shuffled_captions import Null
from curate.decide.similarities import Similarities
from curate.decide.stage import Verdicts
from curate.report import counts, mismatch, page
from curate.report.counts import among
from curate.report.figures import describe_cut, has_planted, is_planted
from curate.report.mismatch import Mismatches
from curate.run.database import quoted

CUTS = tuple(step / 100 for step in range(20, 36))  # around the cuts of LAION and similar data sets
RATES = (0.01, 0.02, 0.05, 0.1, 0.2)


def section(verdicts: Verdicts, figures: dict[str, Any]) -> Markup:
    """The histogram, the estimate of wrong captions, and the tables of other cuts."""
    scored = Similarities.of(verdicts.ledger)
    if not scored.pairs:
        return page.paragraph("No pair has a similarity.")
    caption = (
        "CLIP similarity of the pairs, and of the same images with captions of other images. These "
        "shuffled captions are the null distribution: they show how wrong captions score. The further "
        "apart the two are, the better this CLIP tells right captions from wrong ones."
    )
    parts = [
        page.paragraph(f"Cut: {describe_cut(figures['cut'])}."),
        page.figure(
            _histogram(scored, verdicts), caption, "histogram of similarities with the cut"
        ),
    ]
    reached = reaching(verdicts)
    pairs = Similarities.of(verdicts.ledger, _reached(reached))
    if pairs.pairs:
        found = mismatch.estimate(pairs, verdicts.null)
        parts += [_what_if(pairs, reached, verdicts, found), _wrong(found)]
    return Markup("").join(parts)


def reaching(verdicts: Verdicts) -> list[str]:
    """The values of the column ``rule``, with "", of the pairs that reached the similarity cut."""
    rules = list(dict.fromkeys(name for name, _ in verdicts.steps))
    return ["", *rules[rules.index("no_similarity") + 1 :]]


def _reached(rules: list[str]) -> str:
    """The condition in SQL for the pairs with one of ``rules``."""
    return f"rule IN ({', '.join(map(quoted, rules))})"


def _histogram(scored: Similarities, verdicts: Verdicts) -> Markup:
    null = verdicts.null.similarities
    both = np.concatenate([scored.values.astype(np.float64), null])
    edges = np.linspace(both.min(), max(both.max() + 1e-6, both.min() + 0.01), 61)
    drawing, axes = page.subplots(7.5, 3.2)
    series, ledger = [("pairs", scored, page.BLUE)], verdicts.ledger
    if has_planted(ledger):
        wrong = Similarities.of(ledger, is_planted(ledger))
        true = Similarities.of(ledger, f"NOT {is_planted(ledger)}")
        if wrong.pairs:
            series = [("true pairs", true, page.BLUE)]
            series.append(("planted mismatches", wrong, page.VERMILLION))
    for label, of, colour in series:
        axes.hist(
            of.values, edges, weights=of.times, density=True, color=colour, alpha=0.5, label=label
        )
    if len(null):
        density, _ = np.histogram(null, edges, density=True)
        axes.stairs(density, edges, color="black", linewidth=1.2, label="shuffled captions")
    if verdicts.cut is not None:
        label = f"cut {verdicts.cut:.3f}"
        axes.axvline(verdicts.cut, color=page.VERMILLION, linestyle="--", label=label)
    axes.set_xlabel("CLIP similarity")
    axes.set_ylabel("density")
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2)
    return page.svg(drawing)


def cuts(similarities: Similarities) -> list[float]:
    """The cuts to try: ``CUTS``, or as many over the range of a CLIP with other similarities.

    Args:
        similarities: of the pairs, at least one.
    """
    values = similarities.values
    within = similarities.count((values >= CUTS[0]) & (values < CUTS[-1]))
    if within / similarities.pairs >= 0.5:
        return list(CUTS)
    low, high = similarities.quantiles([0.01, 0.99])
    return list(dict.fromkeys(float(cut) for cut in np.linspace(low, high, len(CUTS)).round(3)))


def _what_if(
    pairs: Similarities, reached: list[str], verdicts: Verdicts, found: Mismatches | None
) -> Markup:
    given = [] if verdicts.cut is None else [verdicts.cut]
    tried = sorted({*cuts(pairs), *given})
    head, rows = _rows(tried, pairs, reached, verdicts, found)
    text = (
        f"For each cut, how many of the {pairs.pairs:,} scored pairs that earlier rules kept are at or "
        "above it. Later rules (captions per image, duplicates) may drop some of these."
    )
    parts = [page.heading("What other cuts would keep"), page.paragraph(text, "note")]
    parts.append(page.details(f"{len(rows)} cuts", counts.table(head, rows)))
    if len(verdicts.null.similarities):
        by_rate = [cut for rate in RATES if (cut := verdicts.null.cut(rate)) is not None]
        head, rows = _rows(by_rate, pairs, reached, verdicts, found)
        with_rate = [[f"{rate:.0%}", *row] for rate, row in zip(RATES, rows, strict=True)]
        body = counts.table(["false_keep_rate", *head], with_rate)
        parts.append(
            page.details(
                "Cuts by false_keep_rate, the share of shuffled captions that may pass", body
            )
        )
    return Markup("").join(parts)


def _rows(
    tried: list[float],
    pairs: Similarities,
    reached: list[str],
    verdicts: Verdicts,
    found: Mismatches | None,
) -> tuple[list[str], list[list[Any]]]:
    """The table of some cuts: its head and its rows; columns without data are left out."""
    head = ["cut", "pairs kept", "share kept"]
    null, is_estimated = verdicts.null, found is not None and found.is_known
    head += ["shuffled that pass"] if len(null.similarities) else []
    head += ["wrong kept (estimate) [95 %]", "share wrong"] if is_estimated else []
    wrong = None
    if "planted_mismatch" in (ledger := verdicts.ledger):
        wrong = Similarities.of(ledger, f"{_reached(reached)} AND {is_planted(ledger)}")
        head.append("planted kept")
    rows = []
    for cut in tried:
        above = pairs.count(pairs.values >= np.float32(cut))
        query = f"clip_similarity >= {cut!r} and {among('rule', reached)}"
        row: list[Any] = [_named(cut, verdicts), counts.pairs(above, query)]
        row.append(f"{above / pairs.pairs:.1%}")
        row += [f"{null.false_keep_rate(cut):.1%}"] if len(null.similarities) else []
        if found is not None and is_estimated:
            row += _wrong_kept(found, null, cut, above)
        if wrong is not None:
            planted = wrong.count(wrong.values >= np.float32(cut))
            row.append(counts.pairs(planted, f"{query} and planted_mismatch"))
        rows.append(row)
    return head, rows


def _named(cut: float, verdicts: Verdicts) -> Markup:
    is_given = cut == verdicts.cut
    mark = Markup(" <b>this run</b>") if is_given else Markup("")
    return Markup('<span class="whole">{}{}</span>').format(f"{cut:.3g}", mark)


def _wrong_kept(found: Mismatches, null: Null, cut: float, kept: int) -> list[str]:
    wrong = found.wrong_kept(null, cut, kept)
    interval = f"{wrong.value:,.0f} [{wrong.low:,.0f}, {wrong.high:,.0f}]"
    return [interval, f"{wrong.value / kept:.1%}" if kept else ""]


def _wrong(found: Mismatches | None) -> Markup:
    """The estimate of wrong captions and its assumptions, or why there is none."""
    if found is None:
        return page.paragraph(
            "There is no estimate of wrong captions: there are no shuffled captions to compare with.",
            "note",
        )
    if not found.is_known:
        return page.paragraph(
            "There is no estimate of wrong captions: with this CLIP the pairs score hardly better than "
            "shuffled captions.",
            "note",
        )
    share = found.share
    return page.paragraph(
        f"Estimated share of wrong captions among these pairs: {share.value:.1%} "
        f"[{share.low:.1%}, {share.high:.1%}]. It is the share of pairs that score as low as the lowest "
        f"{found.tail:.0%} of shuffled captions, divided by {found.tail:.0%}. It assumes that wrong "
        "captions score like shuffled ones, and therefore pass each cut as often. True pairs "
        "with such low scores count as wrong, so the upper end of the interval holds whatever the true "
        "pairs look like. The lower end assumes that at least twice as many of these true pairs are in "
        "the upper half of that range as in the lower half.",
        "note",
    )
