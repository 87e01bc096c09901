"""The first thing that the evaluation's report says: better or not, by how much, and what was not measured."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from markupsafe import Markup

from curate.report import page
from curate.run.intervals import changes
from evaluate import evaluators
from evaluate.glossary import short, title
from evaluate.results import NOT_MEASURED, CheckpointResult, Metric, Results

_KINDS = {
    "improving": "good",
    "converged": "good",
    "overfitting": "warn",
    "regressing": "warn",
    "inconclusive": "info",
    "no_effect": "bad",
    "diverged": "bad",
}


def banner(found: Results) -> Markup:
    """The verdict's word and the result in one line; below it the verdict, the gate and what is missing."""
    verdict = found.verdict
    word = verdict.word.replace("_", " ").capitalize()
    kind = "bad" if found.gate == "failed" else _KINDS[verdict.word]
    said = [verdict.sentence, _gate(found), *_missing(found)]
    return page.banner(kind, f"{word}: {_result(found)}", " ".join(map(page.sentence, said)))


def _result(found: Results) -> str:
    """What the checkpoint to keep is worth, to somebody who reads only this line."""
    change = found.metrics.get("heldout_change", Metric())
    if change.value is None:
        return "whether it is better than the base model was not measured"
    if found.verdict.kept == 0:
        return "no checkpoint is better than the base model"
    size, less = changes(change.value)[0].lstrip("+-"), change.value < 0
    return f"step {found.verdict.kept:,} has {size} % {'less' if less else 'more'} held-out loss than the base model"


def _gate(found: Results) -> str:
    if not found.checks:
        return "The gate has no rules."
    asides = [
        f"{count} {word}"
        for status, word in (
            ("failed", "failed"),
            ("warned", "warned"),
            ("undecided", "undecided"),
            ("skipped", NOT_MEASURED),
        )
        if (count := sum(check.status == status for check in found.checks))
    ]
    aside = f" ({', '.join(asides)})" if asides else ""
    return f"The gate {'is undecided' if found.gate == 'undecided' else found.gate}{aside}."


def _missing(found: Results) -> list[str]:
    parts = [f"{joined(titles)} ({reason})" for reason, titles in missing(found.metrics).items()]
    return [f"Not measured: {'; '.join(parts)}."] if parts else []


def missing(metrics: Mapping[str, Metric]) -> dict[str, list[str]]:
    """Titles of the metrics that were not measured, by the reason."""
    found: dict[str, list[str]] = {}
    for name, metric in metrics.items():
        if metric.value is None:
            found.setdefault(metric.reason, []).append(title(name))
    return found


def joined(titles: list[str]) -> str:
    """Titles in a sentence; what several begin with is said once.

    >>> joined(["Prompt following, base", "Prompt following, kept", "Test loss"])
    'prompt following, test loss'
    """
    heads = dict.fromkeys(title.partition(",")[0] for title in titles)
    return ", ".join(head[:1].lower() + head[1:] for head in heads)


def tiles(found: Results) -> Markup:
    """The large numbers; one that was not measured says so."""
    return page.tiles([*_metric_tiles(found), *_other_tiles(found)])


def _metric_tiles(found: Results) -> Iterator[tuple[str, str]]:
    for name, text in evaluators.descriptions().items():
        if text.tile and name in found.metrics:
            metric = found.metrics[name]
            yield NOT_MEASURED if metric.value is None else short(name, metric), text.tile


def _other_tiles(found: Results) -> Iterator[tuple[str, str]]:
    kept = checkpoint(found, found.verdict.kept)
    yield (
        f"step {kept.step:,}" if kept.step else "base",
        f"kept, after {kept.samples_seen:,} samples",
    )
    yield f"{kept.val.n or 0:,}", "held-out pictures"
    yield found.gate, "gate"


def checkpoint(found: Results, step: int) -> CheckpointResult:
    """The one of a step."""
    return next(checkpoint for checkpoint in found.checkpoints if checkpoint.step == step)
