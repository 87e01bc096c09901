"""How metrics and terms are named, explained and printed, the same in every output."""

from __future__ import annotations

from evaluate.evaluators import Description, descriptions
from evaluate.results import Metric

VERDICT = Description("Verdict", "What the run did, in one word.", better="", fraction=False)

TERMS: dict[str, str] = {
    "Base": "The model before fine-tuning.",
    "Kept": "The checkpoint to keep: the earliest whose held-out loss is within one standard error of "
    "the best or, where that copies training pictures, an earlier one that does not. It may be the base.",
    "Exported": "The checkpoint with the lowest held-out loss while training, which uses fewer noises "
    "per picture than this report. It may be a later one than the kept.",
    "Interval": "95 %, by Student's t over groups of pictures: where the number would fall if other "
    "pictures had been drawn.",
    "Group": "Pictures that are copies or close variants of each other, such as one emoji in five skin "
    "tones. They count as one, because they say the same thing.",
    "Noise level": "Tenths of the diffusion time. Little noise tests detail, much tests composition.",
}


def glossary() -> dict[str, Description]:
    """Every name that a rule of the gate may use: the verdict, and the evaluators' metrics."""
    return {"verdict": VERDICT, **descriptions()}


def shown(name: str, metric: Metric) -> str:
    """A metric's value with its interval, as it is printed everywhere."""
    return _description(name).shown(metric)


def short(name: str, metric: Metric) -> str:
    """A metric's value alone, for large print."""
    return _description(name).short(metric)


def title(name: str) -> str:
    """A metric's title; its name if there is none, as in results of another version."""
    return _description(name).title


def _description(name: str) -> Description:
    return glossary().get(name) or Description(name, "", better="", fraction=False)
