"""The figures that a history keeps of one retraining, also when the run's folder is deleted.

``Record.summary`` and the lines of ``history.jsonl`` hold them as JSON. What a stage did not leave, since the
retraining ended before it, is not in them; a reader takes nothing for granted but ``version``.

``version``
    of this form.
``data``
    ``pairs_in, kept, dropped, unreadable`` pairs and ``keep_rate``, of all curations together; ``images``, the
    pictures in ``train, val, test``; ``rules``, those that dropped most, each ``{rule, dropped}``.
``evaluation``
    the ``verdict``'s word, the ``gate``'s state, the steps ``kept`` and ``last``, and ``metrics``: of each of
    ``METRICS`` ``value, low, high, n, groups, on``, as in ``report.json``; one without a value has a ``reason``.
``seconds``
    that the last start of each step took.
``damaged``
    files that could not be read, by their path in the run.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from curate.run.files import read_json
from curate.run.schema import UserError
from evaluate.results import SCHEMA_VERSION
from workflows.retraining import run_files
from workflows.retraining.record import Record, Step

VERSION = 1
RULES = 5  # that are kept of those that drop pairs
SIDES = ("train", "val", "test")

METRICS = (
    "test_change",
    "heldout_change",
    "exported_change",
    "clip_base",
    "clip_kept",
    "clip_change",
    "caption_fit_base",
    "caption_fit_kept",
    "retention_loss_change",
    "copying",
    "against_change",
)
_FIELDS = ("value", "low", "high", "n", "groups", "on", "reason")


def of(run_dir: Path) -> dict[str, Any]:
    """The figures of a run, as far as its files tell them; see this module. It raises nothing for missing files."""
    damaged: list[str] = []
    parts = {
        "data": _data(run_dir, damaged),
        "evaluation": _evaluation(run_dir, damaged),
        "seconds": _seconds(run_dir, damaged),
        "damaged": damaged,
    }
    return {"version": VERSION, **{name: part for name, part in parts.items() if part}}


def _data(run_dir: Path, damaged: list[str]) -> dict[str, Any]:
    totals: Counter[str] = Counter()
    images: Counter[str] = Counter()
    rules: Counter[str] = Counter()
    for curate_dir in run_files.curate_dirs(run_dir):
        funnel = _read(curate_dir / "funnel.json", damaged)
        counts = funnel or _read(curate_dir / "manifest.json", damaged).get("totals", {})
        totals.update({name: counts[name] for name in _COUNTS if name in counts})
        images.update(counts.get("samples", {}))
        rules.update({rule["rule"]: rule["dropped"] for rule in funnel.get("rules", [])})
    if not totals:
        return {}
    found: dict[str, Any] = dict(totals)
    if totals["pairs_in"]:
        found["keep_rate"] = totals["kept"] / totals["pairs_in"]
    found["images"] = {side: images[side] for side in SIDES}
    dropping = sorted(rules.items(), key=lambda item: (-item[1], item[0]))
    found["rules"] = [{"rule": rule, "dropped": n} for rule, n in dropping[:RULES] if n]
    return found


_COUNTS = ("pairs_in", "kept", "dropped", "unreadable")


def _evaluation(run_dir: Path, damaged: list[str]) -> dict[str, Any]:
    report = _read(run_dir / "evaluate" / "report.json", damaged)
    if report.get("schema_version") != SCHEMA_VERSION:
        return {}
    verdict, metrics = report["verdict"], report["metrics"]
    return {
        "verdict": verdict["word"],
        "gate": report["gate"],
        "kept": verdict["kept"],
        "last": verdict["last"],
        "metrics": {name: _metric(metrics[name]) for name in METRICS if name in metrics},
    }


def _metric(metric: dict[str, Any]) -> dict[str, Any]:
    return {name: metric[name] for name in _FIELDS if metric.get(name) not in (None, "")}


def _seconds(run_dir: Path, damaged: list[str]) -> dict[str, float]:
    try:
        record = Record.load(run_dir)
    except UserError:
        damaged.append("retrain.json")
        return {}
    return dict(_took(record.steps)) if record else {}


def _took(steps: dict[str, Step]) -> Iterator[tuple[str, float]]:
    for name, step in steps.items():
        if step.started and step.ended:
            started, ended = map(datetime.fromisoformat, (step.started, step.ended))
            yield name, (ended - started).total_seconds()


def _read(path: Path, damaged: list[str]) -> dict[str, Any]:
    found = read_json(path)
    if found is None and path.is_file():
        damaged.append(f"{path.parent.name}/{path.name}")
    return found or {}
