"""The evaluators: each module of this folder asks one question about a run and yields metrics.

A module of this folder defines ``EVALUATOR`` and is found by being here. ``report.json``, the report,
its glossary, the summary and the gate take their metrics from :func:`registry` and name none themselves.

The gate's configuration is checked against the metrics' names before anything heavy is imported, so
an evaluator imports torch, diffusers, open_clip, PIL and the like inside its functions.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from curate.run.intervals import changes
from evaluate.results import NOT_MEASURED, Finding

if TYPE_CHECKING:
    from curate.report.page import Section
    from evaluate.evaluation import Evaluation
    from evaluate.measure_config import MeasureConfig
    from evaluate.results import Metric, Results


@dataclass(frozen=True, slots=True)
class Description:
    """How a metric is named, explained and printed.

    Attributes:
        title: in tables. meaning: in the glossary, a sentence or two.
        better: which direction is better; "" where neither is.
        fraction: whether it is printed in percent.
        tile: label of the metric among the large numbers on top of the report; "" leaves it out.
        signed: whether an increase has a plus; shares have none.
    """

    title: str
    meaning: str
    better: Literal["lower", "higher", ""] = "lower"
    fraction: bool = True
    tile: str = ""
    signed: bool = True

    def shown(self, metric: Metric) -> str:
        """The metric's value with its interval, as it is printed everywhere."""
        if metric.value is None:
            return NOT_MEASURED
        if metric.low is None or metric.high is None:
            return f"{100 * metric.value:.3g} %" if self.fraction else f"{metric.value:.3g}"
        estimate = (metric.value, metric.low, metric.high)
        shown = changes(*estimate) if self.fraction else [f"{x:+.3f}" for x in estimate]
        value, low, high = shown if self.signed else [text.removeprefix("+") for text in shown]
        return f"{value}{' %' if self.fraction else ''} [{low}, {high}]"

    def short(self, metric: Metric) -> str:
        """The value alone, for large print."""
        if metric.value is None or self.fraction:
            return self.shown(metric).split(" [")[0]
        return f"{metric.value:.3g}"


@dataclass(frozen=True, slots=True)
class FindingOn(Finding):
    """A finding and the metric that it speaks of, so that it can be held against the gate's rules on that."""

    metric: str = ""


def _no_sections(_: Results) -> Iterable[Section]:
    return ()


def _no_pictures(_: Results, __: Path) -> Iterable[Section]:
    return ()


def _no_findings(_: Mapping[str, Metric]) -> Iterable[Finding]:
    return ()


def _no_instrument(_: MeasureConfig) -> str:
    return ""


@dataclass(frozen=True, slots=True)
class Evaluator:
    """One question about a run.

    Attributes:
        metrics: what it measures, by name; all metrics of all evaluators have different names.
        measure: yields each of ``metrics`` once; one that cannot be measured is null with a reason.
        sections: what it draws in the report, from the numbers in ``report.json``.
        pictures: what it shows after that of files, whose paths in ``report.json`` start at the folder given.
        findings: what it says in the report's headline, mostly a cost, from the metrics of all evaluators.
        instrument: what it measures with, where that is a choice; the gate names it beside its rules.
        position: in tables and in the report, the smallest first.
    """

    metrics: Mapping[str, Description]
    measure: Callable[[Evaluation], Iterable[tuple[str, Metric]]]
    sections: Callable[[Results], Iterable[Section]] = _no_sections
    pictures: Callable[[Results, Path], Iterable[Section]] = _no_pictures
    findings: Callable[[Mapping[str, Metric]], Iterable[Finding]] = _no_findings
    instrument: Callable[[MeasureConfig], str] = _no_instrument
    position: int = 100


@functools.cache
def registry() -> dict[str, Evaluator]:
    """Every evaluator by the name of its module; modules whose names start with ``_`` are none.

    Raises:
        RuntimeError: a module has no ``EVALUATOR``, or a metric's name is taken; names the module.
    """
    found: dict[str, Evaluator] = {}
    owner = {"verdict": "the verdict"}  # which rules of the gate name like a metric
    for name in sorted(module.name for module in pkgutil.iter_modules(__path__)):
        if name.startswith("_"):
            continue
        evaluator = getattr(importlib.import_module(f"{__name__}.{name}"), "EVALUATOR", None)
        if not isinstance(evaluator, Evaluator):
            raise RuntimeError(f"{__name__}.{name} defines no EVALUATOR; see {__name__}.Evaluator")
        for metric in evaluator.metrics:
            if metric in owner:
                raise RuntimeError(
                    f"{__name__}.{name} names a metric {metric!r}, as does {owner[metric]}"
                )
            owner[metric] = f"{__name__}.{name}"
        found[name] = evaluator
    return found


def in_order() -> dict[str, Evaluator]:
    """The evaluators by name, in the order in which they are measured and shown."""
    return dict(sorted(registry().items(), key=lambda item: (item[1].position, item[0])))


def descriptions() -> dict[str, Description]:
    """Every metric's description by its name, in the order of the tables."""
    return {name: text for e in in_order().values() for name, text in e.metrics.items()}


def findings(metrics: Mapping[str, Metric]) -> Iterator[Finding]:
    """What the evaluators say in the headline."""
    for evaluator in in_order().values():
        yield from evaluator.findings(metrics)


def cost(
    metrics: Mapping[str, Metric],
    name: str,
    section: str,
    worse: str,
    same: str,
    margin: float = 0.0,
) -> Iterator[Finding]:
    """What one metric says of a cost, by its interval and the direction that its description calls better.

    Args:
        metrics: of all evaluators.
        name: of the metric.
        section: of the report, its anchor.
        worse: what to say where the interval shows a loss beyond the margin; the numbers follow it.
        same: what to say where the interval excludes one.
        margin: a loss up to this one is none.

    Yields:
        Nothing where the metric was not measured: the report lists what was not.
    """
    metric, text = metrics.get(name), descriptions()[name]
    if metric is None or metric.value is None:
        return
    sign = -1 if text.better == "higher" else 1
    bounds = [metric.value if bound is None else bound for bound in (metric.low, metric.high)]
    surely, likely = min(sign * bound for bound in bounds), sign * metric.value
    possibly = max(sign * bound for bound in bounds)
    numbers = text.shown(metric)
    if surely > margin:
        yield FindingOn("cost", "bad", f"{worse}: {numbers}.", section, name)
    elif likely > margin:
        yield FindingOn("cost", "warn", f"{worse}, perhaps: {numbers}.", section, name)
    elif possibly > margin:
        text = f"{same}, as far as so few pictures show: {numbers}."
        yield Finding("cost", "info", text, section)
    else:
        yield Finding("cost", "good", f"{same}: {numbers}.", section)


def draw_interval(
    axes: Any, row: int, metric: Metric, colour: str, *, scale: float = 1.0, marker: str = "o"
) -> None:
    """A metric in a row of a figure: a bar from the lower to the upper bound, and its value.

    Args:
        axes: of matplotlib.
        row: its height in the figure.
        metric: measured; a missing bound is the value.
        colour: of both.
        scale: what values are multiplied by, 100 for percent.
        marker: of the value, matplotlib's.
    """
    assert metric.value is not None
    low, high = (metric.value if bound is None else bound for bound in (metric.low, metric.high))
    axes.plot([scale * low, scale * high], [row, row], color=colour, linewidth=5, alpha=0.35)
    axes.plot(scale * metric.value, row, marker, color=colour, markersize=8)


def instruments(config: MeasureConfig) -> dict[str, str]:
    """What each metric is measured with, by its name; metrics of which there is nothing to say are left out."""
    return {
        name: said
        for evaluator in in_order().values()
        if (said := evaluator.instrument(config))
        for name in evaluator.metrics
    }


def measure(evaluation: Evaluation) -> Iterator[tuple[str, Metric]]:
    """The metrics of all evaluators.

    Raises:
        RuntimeError: an evaluator did not yield each metric that it declares once; names its module.
    """
    for name, evaluator in in_order().items():
        found = list(evaluator.measure(evaluation))
        if sorted(metric for metric, _ in found) != sorted(evaluator.metrics):
            raise RuntimeError(
                f"{__name__}.{name} declares {sorted(evaluator.metrics)} and yields "
                f"{sorted(metric for metric, _ in found)}"
            )
        yield from found
