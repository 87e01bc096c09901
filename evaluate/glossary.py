"""What each metric of ``report.json`` is called, means and is good for, in one line each."""

from __future__ import annotations

from dataclasses import dataclass

from curate.run.intervals import changes
from evaluate.results import Metric


@dataclass(frozen=True, slots=True)
class Entry:
    """A metric's title, its meaning, which direction is better, and whether it is a fraction."""

    title: str
    meaning: str
    better: str = "lower"
    fraction: bool = True


GLOSSARY: dict[str, Entry] = {
    "verdict": Entry("Verdict", "What the run did, in one word.", better="", fraction=False),
    "heldout_change": Entry(
        "Held-out loss, kept against base",
        "Denoising loss on pictures that were not trained on, each noise level relative to the base "
        "model's, paired per picture.",
    ),
    "exported_change": Entry(
        "Held-out loss, export against base",
        "The same for the checkpoint that the export holds: what is given away.",
    ),
    "heldout_change_last": Entry(
        "Held-out loss, last against base", "The same for the last checkpoint."
    ),
    "heldout_since_best": Entry(
        "Held-out loss, last against best",
        "What training on beyond the best checkpoint cost, in points of the base model's loss.",
    ),
    "test_change": Entry(
        "Test loss, kept against base",
        "The same on the split that chose nothing: choosing the best of several checkpoints makes "
        "held-out loss look a little better than it is.",
    ),
    "probe_change": Entry(
        "Training-picture loss, kept against base",
        "The same on as many training pictures. A gap to held-out pictures is normal; held-out loss "
        "that rises while this one falls is overfitting.",
    ),
    "detectable_change": Entry(
        "Smallest detectable change",
        "The smallest true change between kept and base that this many pictures reveal in 80 % of "
        "cases.",
    ),
    "clip_base": Entry(
        "Prompt following, base",
        "CLIP similarity of generated pictures with their captions: 0 is real pictures with wrong "
        "captions, 1 is real pictures with their own.",
        better="higher",
        fraction=False,
    ),
    "clip_kept": Entry(
        "Prompt following, kept", "The same for the kept checkpoint.", "higher", fraction=False
    ),
    "clip_change": Entry(
        "Prompt following, kept against base",
        "Their difference, paired per caption, same seeds.",
        better="higher",
        fraction=False,
    ),
    "flat_pictures": Entry(
        "Blank pictures",
        "Generated pictures of one colour throughout, which a model that broke down makes.",
        fraction=False,
    ),
}

TERMS: dict[str, str] = {
    "Base": "The model before fine-tuning.",
    "Kept": "The earliest checkpoint whose held-out loss is within one standard error of the best.",
    "Exported": "The checkpoint with the lowest held-out loss while training, on fewer noises per "
    "picture than here. It may be a later one than the kept.",
    "Interval": "95 %, from 2,000 bootstrap draws of the pictures unless configured otherwise: where "
    "the number would fall had other held-out pictures been drawn.",
    "Noise level": "Tenths of the diffusion time. Little noise tests detail, much tests composition.",
}


def shown(name: str, metric: Metric) -> str:
    """A metric's value with its interval as it is printed everywhere."""
    if metric.value is None:
        return "–"
    scale, unit = (100, " %") if _fraction(name) else (1, "")
    if metric.low is None or metric.high is None:
        return f"{scale * metric.value:.3g}{unit}"
    estimate = (metric.value, metric.low, metric.high)
    value, low, high = changes(*estimate) if _fraction(name) else (f"{x:+.3f}" for x in estimate)
    return f"{value}{unit} [{low}, {high}]"


def title(name: str) -> str:
    """A metric's title; its name where the glossary has none."""
    return GLOSSARY[name].title if name in GLOSSARY else name


def _fraction(name: str) -> bool:
    return name in GLOSSARY and GLOSSARY[name].fraction
