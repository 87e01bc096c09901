"""What an evaluation says first, on every output alike: what was gained, whether it still falls, what it cost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from markupsafe import Markup

from curate.report import page
from curate.run.intervals import changes
from evaluate import evaluators
from evaluate.evaluators.against import OTHER
from evaluate.outputs.glossary import short, title
from evaluate.results import (
    BASE_KEPT,
    NOT_ASKED,
    NOT_MEASURED,
    Check,
    CheckpointResult,
    Finding,
    Metric,
    Results,
    Verdict,
)
from finetune.rules import Word

PARTS = {"result": "Result", "trend": "Trend", "cost": "Cost"}
# The verdict's words as a trend: what the last checkpoints say about the next ones.
_TRENDS = {
    Word.IMPROVING: ("info", "still falling"),
    Word.SLOWING: ("info", "not known whether it still falls"),
    Word.CONVERGED: ("good", "no longer changes"),
    Word.OVERFITTING: ("warn", "overfitting"),
    Word.REGRESSING: ("warn", "got worse again"),
    Word.NO_EFFECT: ("bad", "no effect"),
    Word.DIVERGED: ("bad", "diverged"),
    Word.INCONCLUSIVE: ("info", "not decided"),
}
SPLITS = {"test": "test", "val": "held-out"}


def findings(
    verdict: Verdict,
    metrics: Mapping[str, Metric],
    checks: Sequence[Check] = (),
    against: str = "",
) -> tuple[Finding, ...]:
    """Result, trend and costs; a base that is kept has none that is good news.

    Args:
        verdict: on the run.
        metrics: of all evaluators.
        checks: of the gate: what got worse and is within what all its rules on that metric allow, says so.
        against: the run that ``gate.against`` names; "" for none.
    """
    found = [_beside_the_gate(each, verdict, checks) for each in evaluators.findings(metrics)]
    if against:
        found = [replace(each, text=each.text.replace(OTHER, against)) for each in found]
    costs = sorted(found, key=lambda finding: _URGENCY[finding.state])
    if verdict.kept == 0:
        costs = [finding for finding in costs if finding.state in ("bad", "warn")]
    return (_result(verdict, metrics), _trend(verdict), *costs)


def _beside_the_gate(found: Finding, verdict: Verdict, checks: Sequence[Check]) -> Finding:
    """A finding as it is stored; one that is bad, though every rule of the gate on it is met, is so much milder."""
    metric = found.metric if isinstance(found, evaluators.FindingOn) else ""
    names = {metric}
    if verdict.kept == verdict.exported:  # then a rule on the export is on the kept checkpoint
        names.add(f"{metric.removesuffix('_kept')}_exported")
    rules = [check for check in checks if check.metric in names]
    state, text = found.state, found.text
    if rules and state in ("bad", "warn") and all(rule.status == "passed" for rule in rules):
        allowed = " and ".join(dict.fromkeys(rule.rule for rule in rules))
        state, text = "warn", f"{text} That is within what the gate allows: {allowed}."
    return Finding(found.part, state, text, found.section)


_URGENCY = {"bad": 0, "warn": 1, "info": 2, "good": 3}


def _result(verdict: Verdict, metrics: Mapping[str, Metric]) -> Finding:
    """What the checkpoint to keep is worth, on pictures that had no part in choosing it where there are any."""
    if verdict.kept == 0:
        text = "No checkpoint is better than the base model: keep the base."
        if metrics.get("copying_checkpoints", Metric()).value:
            text = (
                "Keep the base model: no checkpoint that was looked at is better than it and copies no training "
                "pictures."
            )
        return Finding("result", "bad", text, "loss")
    candidates = (metrics.get(name, Metric()) for name in ("test_change", "heldout_change"))
    change = next((metric for metric in candidates if metric.value is not None), None)
    if change is None or change.value is None or change.low is None or change.high is None:
        text = "Whether it is better than the base model was not measured."
        return Finding("result", "info", text, "loss")
    value, low, high = changes(change.value, change.low, change.high)
    less = "less" if change.value < 0 else "more"
    chosen = "" if change.on == "test" else ", by which this checkpoint was chosen"
    text = (
        f"Step {verdict.kept:,} has {value.lstrip('+-')} % {less} loss than the base model [{low}, {high}] on "
        f"{change.n:,} {SPLITS.get(change.on, change.on)} pictures in {change.groups:,} groups{chosen}."
    )
    state = "good" if change.high < 0 else "bad" if change.low > 0 else "warn"
    return Finding("result", state, text, "loss")


def _trend(verdict: Verdict) -> Finding:
    state, words = _TRENDS[Word(verdict.word)]
    return Finding("trend", state, f"{words.capitalize()}. {verdict.sentence}", "loss")


def banner(found: Results) -> Markup:
    """The three parts, each with its own state, and the gate's; no mark stands for all of them."""
    parts = Markup("").join(_part(found, part, name) for part, name in PARTS.items())
    gate = Markup('<div class="part"><h3>Gate</h3><p>{} {}</p></div>').format(
        page.badge(GATE_KINDS[found.gate], found.gate), _gate(found)
    )
    return Markup('<div class="parts">{}</div>').format(parts + gate)


GATE_KINDS = {"passed": "good", "warned": "warn", "failed": "bad", "undecided": "info"}
WORDS = {"good": "good", "warn": "attention", "bad": "bad", "info": "open"}


def _part(found: Results, part: str, name: str) -> Markup:
    said = [finding for finding in found.findings if finding.part == part]
    lines = Markup("").join(
        Markup('<p>{} {} <a href="#{}">more</a></p>').format(
            page.badge(finding.state, WORDS[finding.state]),
            page.clean(finding.text, 600),
            finding.section,
        )
        for finding in said
    )
    return Markup('<div class="part"><h3>{}</h3>{}</div>').format(
        name,
        lines
        or page.paragraph(
            "None: what is kept is the base." if found.verdict.kept == 0 else "None was measured."
        ),
    )


def _gate(found: Results) -> str:
    if not found.checks:
        return "It has no rules."
    count = {
        word: sum(check.status == status for check in found.checks)
        for status, word in (
            ("passed", "met"),
            ("failed", "broken"),
            ("warned", "optional and broken"),
            ("undecided", "undecided"),
            ("skipped", f"optional and {NOT_MEASURED}"),
        )
    }
    said = ", ".join(f"{number} {word}" for word, number in count.items() if number)
    return f"Of {len(found.checks)} rules {said}."


def missing(metrics: Mapping[str, Metric], unasked: bool = False) -> dict[str, list[str]]:
    """Titles of the metrics that were not measured, by the reason.

    Args:
        metrics: of all evaluators.
        unasked: whether to list those that nobody misses too, and one by one those that would compare the
            checkpoint to keep where that is the base; else these are one.
    """
    found: dict[str, list[str]] = {}
    for name, metric in metrics.items():
        if metric.value is not None or (metric.reason.startswith(NOT_ASKED) and not unasked):
            continue
        if metric.reason.startswith(BASE_KEPT) and not unasked:
            found[BASE_KEPT] = ["Comparisons of a checkpoint to keep"]
        else:
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
    yield f"{kept.val.groups or 0:,}", f"groups of held-out pictures ({kept.val.n or 0:,} pictures)"


def checkpoint(found: Results, step: int) -> CheckpointResult:
    """The one of a step."""
    return next(checkpoint for checkpoint in found.checkpoints if checkpoint.step == step)
