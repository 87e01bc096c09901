"""How metrics and terms are named, explained and printed, the same in every output."""

from __future__ import annotations

from curate.run.intervals import changes
from evaluate.evaluators import Description, descriptions
from evaluate.results import Metric

VERDICT = Description("Verdict", "What the run did, in one word.", better="", fraction=False)

TERMS: dict[str, str] = {
    "Base": "The model before fine-tuning.",
    "Kept": "The checkpoint to keep: the earliest whose held-out loss is within one standard error of "
    "the best.",
    "Exported": "The checkpoint with the lowest held-out loss while training, which uses fewer noises "
    "per picture than this report. It may be a later one than the kept.",
    "Interval": "95 %, from 2,000 bootstrap draws of the pictures unless configured otherwise: where "
    "the number would fall if other held-out pictures had been drawn.",
    "Noise level": "Tenths of the diffusion time. Little noise tests detail, much tests composition.",
}


def glossary() -> dict[str, Description]:
    """Every name that a rule of the gate may use: the verdict, and the evaluators' metrics."""
    return {"verdict": VERDICT, **descriptions()}


def shown(name: str, metric: Metric) -> str:
    """A metric's value with its interval as it is printed everywhere."""
    if metric.value is None:
        return "–"
    fraction = _is_fraction(name)
    if metric.low is None or metric.high is None:
        return f"{100 * metric.value:.3g} %" if fraction else f"{metric.value:.3g}"
    estimate = (metric.value, metric.low, metric.high)
    value, low, high = changes(*estimate) if fraction else (f"{x:+.3f}" for x in estimate)
    return f"{value}{' %' if fraction else ''} [{low}, {high}]"


def short(name: str, metric: Metric) -> str:
    """The value alone, for large print."""
    if metric.value is None or _is_fraction(name):
        return shown(name, metric).split(" [")[0]
    return f"{metric.value:.2f}"


def title(name: str) -> str:
    """A metric's title; its name if there is none."""
    known = glossary()
    return known[name].title if name in known else name


def _is_fraction(name: str) -> bool:
    known = glossary()
    return name in known and known[name].fraction
