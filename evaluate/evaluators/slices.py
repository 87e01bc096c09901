"""Which part of the held-out pictures gained least, and does any part differ from the others?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from markupsafe import Markup

from curate.report import page
from curate.report.page import Section
from curate.run.intervals import changes
from evaluate.evaluators import Description, Evaluator, draw_interval
from evaluate.results import BASE_KEPT, Finding, Metric, Results, SliceResult

if TYPE_CHECKING:
    from evaluate.evaluation import Evaluation

_CHANGE = Description("Change", "Of a slice's held-out loss, against the base.")
_MOST_DRAWN = 40  # slices in the figure


def measure(evaluation: Evaluation) -> Iterator[tuple[str, Metric]]:
    """The change of the slice that gained least, with an interval that holds for all slices at once."""
    from evaluate.metrics.slices import worst

    if evaluation.too_few:
        yield "worst_slice_change", evaluation.too_few
    elif evaluation.kept == 0:
        yield "worst_slice_change", Metric(reason=f"{BASE_KEPT}, so no slice has changed")
    elif (found := worst(evaluation.slices)) is None:
        yield "worst_slice_change", Metric(reason="no slice of the pictures has enough groups")
    else:
        assert found.among_all is not None
        yield "worst_slice_change", Metric.of(found.among_all, "val")


def sections(found: Results) -> Iterator[Section]:
    """The finding, a figure, and a table for each way to divide the pictures."""
    if found.slices:
        yield Section("Slices", "slices", _section(found))


def findings(metrics: Mapping[str, Metric]) -> Iterator[Finding]:
    """A cost where some slice has more loss than the base, though the mean may have less."""
    worst = metrics.get("worst_slice_change", Metric())
    if worst.low is not None and worst.low > 0:
        change = _CHANGE.shown(worst)
        text = (
            f"One slice of the held-out pictures got worse: its loss against the base is {change}."
        )
        yield Finding("cost", "warn", text, "slices")


def _section(found: Results) -> Markup:
    said = sentence(found)
    judged = _judged(found.slices)
    body = page.figure(forest(found), said, said) if judged else page.paragraph(said, "note")
    how = (
        "The change of a slice is that of its own loss, kept against base, with a 95 % interval over groups "
        "of pictures. Its difference is from all other pictures; above zero it gained less. Intervals of "
        "differences hold for all slices at once (Bonferroni)."
    )
    tables = Markup("").join(
        page.heading(dimension.capitalize()) + _table(rows)
        for dimension, rows in _by_dimension(found.slices).items()
    )
    return body + page.details("The numbers", page.paragraph(how, "note") + tables)


def sentence(found: Results) -> str:
    """Which slice gained least, with its interval and the correction; or that none differs beyond chance."""
    judged = _judged(found.slices)
    if not judged:
        return "No slice of the held-out pictures has enough groups to be judged."
    many = f"{len(judged)} slices" if len(judged) > 1 else "1 slice"
    worse = [one for one in judged if (one.difference.low or 0) > 0]
    least = max(worse or judged, key=lambda one: one.difference.value or 0)
    if not worse:
        return (
            f"None of {many} gained less than the other held-out pictures by more than chance explains; least "
            f"gained {_named(least)}, {_CHANGE.shown(least.change)}."
        )
    also = f" {len(worse) - 1} more gained less than the others." if len(worse) > 1 else ""
    return (
        f"Of {many}, {_named(least)} gained least: {_CHANGE.shown(least.change)}, which is "
        f"{_points(least.difference)} from all other held-out pictures (interval corrected for {many}).{also}"
    )


def _named(one: SliceResult) -> str:
    return f"{one.dimension} “{page.clean(one.label, 80)}”"


def _points(difference: Metric) -> str:
    assert difference.value is not None
    assert difference.low is not None
    assert difference.high is not None
    value, low, high = changes(difference.value, difference.low, difference.high)
    return f"{value} points [{low}, {high}]"


def _judged(slices: Sequence[SliceResult]) -> list[SliceResult]:
    return [one for one in slices if one.difference.value is not None]


def _by_dimension(slices: Sequence[SliceResult]) -> dict[str, list[SliceResult]]:
    found: dict[str, list[SliceResult]] = {}
    for one in slices:
        found.setdefault(one.dimension, []).append(one)
    return found


def _table(rows: Sequence[SliceResult]) -> Markup:
    if not rows[0].label:
        return page.paragraph(f"Not divided: {rows[0].change.reason}.", "note")
    return page.table(
        ["Slice", "Pictures", "Groups", "Change", "Difference"],
        [
            [
                page.quote(one.label, 80),
                one.change.n or 0,
                one.change.groups or 0,
                _CHANGE.shown(one.change) if one.change.value is not None else one.change.reason,
                _points(one.difference) if one.difference.value is not None else "",
            ]
            for one in rows
        ],
    )


def forest(found: Results) -> Markup:
    """Each judged slice's change with its interval, and that of all held-out pictures."""
    judged = _judged(found.slices)[:_MOST_DRAWN]
    drawing, axes = page.subplots(7.5, 0.9 + 0.34 * len(judged))
    for row, one in enumerate(reversed(judged)):
        is_worse = (one.difference.low or 0) > 0
        colour = page.VERMILLION if is_worse else page.BLUE
        marker = "D" if is_worse else "o"
        draw_interval(axes, row, one.change, colour, scale=100, marker=marker)
    axes.axvline(0, color="black", linewidth=0.8, linestyle=":")
    overall = found.metrics.get("heldout_change", Metric()).value
    if overall is not None:
        axes.axvline(100 * overall, color="black", linewidth=0.8)
        top = (100 * overall, len(judged) - 0.4)
        axes.annotate("all pictures", top, (0, 3), textcoords="offset points", ha="center")
    axes.set_yticks(range(len(judged)), [_tick(one) for one in reversed(judged)])
    axes.set_ylim(-0.6, len(judged) - 0.4)
    axes.set_xlabel("loss against base, %")
    axes.grid(visible=False, axis="y")
    return page.svg(drawing)


def _tick(one: SliceResult) -> str:
    """Data in a label: matplotlib takes what is between dollar signs for a formula."""
    return page.clean(f"{one.dimension}: {one.label}", 44).replace("$", r"\$")


EVALUATOR = Evaluator(
    metrics={
        "worst_slice_change": Description(
            "Held-out loss, slice that gained least",
            "Held-out pictures divided by source, caption length, similarity, duplicates and the margin to the "
            "curation's rules: the change, kept against base, of the slice that gained least. Its interval "
            "holds for all slices at once, since the worst of many is named.",
        )
    },
    measure=measure,
    sections=sections,
    findings=findings,
    position=55,
)
