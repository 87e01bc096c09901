"""What got better: composition, structure or detail?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from markupsafe import Markup

from curate.report import page
from curate.report.page import Section
from evaluate.evaluators import Description, Evaluator, draw_interval
from evaluate.results import BASE_KEPT, Metric, Results

if TYPE_CHECKING:
    from evaluate.evaluation import Evaluation

# Thirds of the diffusion time, the most noise first: at much noise a model decides where things are, at
# little noise how surfaces look.
THIRDS = ("composition", "structure", "detail")


def third(name: str, bins: int) -> slice:
    """The noise levels of a third, of ``bins`` levels with the least noise first.

    >>> [third(name, 10) for name in THIRDS]
    [slice(7, 10, None), slice(3, 7, None), slice(0, 3, None)]
    """
    edges = [round(bins * part / 3) for part in range(4)]
    part = len(THIRDS) - 1 - THIRDS.index(name)
    return slice(edges[part], edges[part + 1])


def measure(evaluation: Evaluation) -> Iterator[tuple[str, Metric]]:
    """The checkpoint to keep against the base, by third."""
    for name in THIRDS:
        yield f"gain_{name}", _gain(evaluation, name)


def _gain(evaluation: Evaluation, name: str) -> Metric:
    if evaluation.kept == 0:
        return Metric(reason=f"{BASE_KEPT}, there is nothing to compare it with")
    return evaluation.gain(evaluation.kept, third(name, evaluation.config.grid.bins))


def sections(found: Results) -> Iterator[Section]:
    """The thirds side by side."""
    yield Section("Composition, structure, detail", "thirds", _section(found))


def _section(found: Results) -> Markup:
    known = {name: found.metrics.get(f"gain_{name}", Metric()) for name in THIRDS}
    measured = {name: metric for name, metric in known.items() if metric.value is not None}
    if not measured:
        reasons = dict.fromkeys(metric.reason for metric in known.values())
        return page.paragraph(f"Not measured: {'; '.join(reasons)}.", "note")
    caption = _finding(measured)
    rows = [
        [name, EVALUATOR.metrics[f"gain_{name}"].shown(metric), metric.on, metric.groups or ""]
        for name, metric in measured.items()
    ]
    table = page.table(["Third", "Kept against base", "Measured on", "Groups"], rows)
    return page.figure(intervals(measured), caption, caption) + table


def _finding(measured: dict[str, Metric]) -> str:
    """Which third gained most, and which got worse."""
    values = {name: metric.value or 0.0 for name, metric in measured.items()}
    most = min(values, key=lambda name: values[name])
    worse = [name for name, metric in measured.items() if (metric.low or 0.0) > 0]
    lost = f", and {' and '.join(worse)} got worse" if worse else ""
    if values[most] >= 0:
        return f"No third has less loss than the base's{lost}."
    return f"The loss fell most in {most}, by {-100 * values[most]:.1f} %{lost}."


def intervals(measured: dict[str, Metric]) -> Markup:
    """A line for each third, from the lower to the upper bound of its interval."""
    drawing, axes = page.subplots(7.5, 2.2)
    for row, metric in enumerate(reversed(measured.values())):
        draw_interval(axes, row, metric, page.BLUE, scale=100)
    axes.axvline(0, color="black", linewidth=0.8, linestyle=":")
    axes.set_yticks(range(len(measured)), list(reversed(measured)))
    axes.set_ylim(-0.6, len(measured) - 0.4)
    axes.set_xlabel("change of the loss, kept against base, %")
    axes.grid(visible=False, axis="y")
    return page.svg(drawing)


EVALUATOR = Evaluator(
    metrics={
        f"gain_{name}": Description(
            f"Held-out loss at {noise} noise ({name}), kept against base",
            f"The held-out loss of the third of the noise levels with {meaning}.",
        )
        for name, noise, meaning in (
            ("composition", "much", "the most noise, where a model decides where things are"),
            ("structure", "middle", "a middle amount of noise, where shapes are decided"),
            ("detail", "little", "the least noise, where surfaces and edges are decided"),
        )
    },
    measure=measure,
    sections=sections,
    position=15,
)
