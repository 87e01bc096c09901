"""Series of retrainings whose figures are chosen, without a model: files as the stages leave them."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from curate.run.files import write_certified
from evaluate.results import SCHEMA_VERSION, Metric
from workflows.retraining import summary
from workflows.retraining.record import Change, Record, Step
from workflows.retraining.series import Current, Series

REVISION = "0123456789abcdef0123456789abcdef01234567"
PROVENANCE = {"revision": REVISION, "python": "3.11.7", "packages": {"torch": "2.11.0"}}
ENDS = {
    "promoted": "The gate passed: 2.1 points less loss than mine-0001 [-3.0, -1.2].",
    "rejected": "follows_captions: measured -0.193 [-0.280, -0.107], rule: lower bound > -0.1. What was in use stays.",
    "undecided": "against_change: the interval contains the threshold; more held-out pictures decide it.",
    "abandoned": "Settings changed before it was judged.",
}


def outcome_of(number: int) -> str:
    """Promoted at first, and mostly; the seventh of ten rejected, the fifth undecided, the ninth abandoned."""
    return {7: "rejected", 5: "undecided", 9: "abandoned"}.get(number % 10, "promoted")


def metric(value: float, half: float, on: str = "test") -> dict[str, Any]:
    return asdict(Metric(value, value - half, value + half, 64, 41, on))


def metrics(number: int) -> dict[str, Any]:
    gain = -0.2 - 0.06 * (1 - math.exp(-number / 15)) + 0.01 * math.sin(3 * number)
    return {
        "test_change": metric(gain, 0.03),
        "heldout_change": metric(gain + 0.01, 0.04, "val"),
        "clip_base": metric(1.0, 0.1, "val"),
        "clip_kept": metric(0.8 + 0.05 * math.sin(number), 0.1, "val"),
        "clip_change": metric(-0.2 + 0.05 * math.sin(number), 0.08, "val"),
        "caption_fit_kept": metric(0.47, 0.07, "val"),
        "retention_loss_change": metric(0.52, 0.08, "base pictures"),
        "copying": metric(0.03, 0.05, "train less val"),
        "against_change": asdict(Metric(reason="not asked for, gate.against names no run")),
    }


def write_curation(run_dir: Path, number: int) -> None:
    """The funnel alone."""
    pairs = 4000 + 300 * (number - 1)
    kept = int(pairs * (0.7 + 0.02 * math.sin(number)))
    held_out = kept // 20
    totals: dict[str, Any] = {
        "pairs_in": pairs,
        "kept": kept,
        "dropped": pairs - kept,
        "unreadable": 0,
    }
    totals["samples"] = {"train": kept - 2 * held_out, "val": held_out, "test": held_out}
    cut = (pairs - kept) * 9 // 10
    rules = [
        {"rule": "unreadable", "dropped": 0, "left": pairs},
        {"rule": "clip_similarity", "dropped": cut, "left": pairs - cut},
        {"rule": "duplicate", "dropped": pairs - kept - cut, "left": kept},
    ]
    write_certified(run_dir / "curate/funnel.json", {**totals, "rules": rules, "reasons": {}})


def write_evaluation(run_dir: Path, number: int, gate: str = "passed") -> None:
    """As much of ``report.json`` as a summary reads."""
    verdict = {"word": "improving", "kept": 200, "last": 225, "best": 225, "exported": 225}
    content = {"schema_version": SCHEMA_VERSION, "verdict": verdict, "gate": gate}
    write_certified(run_dir / "evaluate/report.json", {**content, "metrics": metrics(number)})


def time_of(number: int, minutes: int = 0) -> str:
    """A retraining each Sunday night."""
    from datetime import UTC, datetime, timedelta

    start = datetime(2026, 1, 4, 3, 17, tzinfo=UTC) + timedelta(weeks=number - 1, minutes=minutes)
    return start.isoformat(timespec="seconds")


def record_of(series: Series, number: int, outcome: str, **changes: Any) -> Record:
    """What a retraining writes of itself."""
    first = (Change("first", "there was no retraining before"),)
    later = (
        Change("data", "300 pictures are new"),
        Change("setting", "train: optim.lr", "1e-4", "1e-5"),
    )
    current = series.current()
    known = Record(
        series=series.name,
        number=number,
        arguments=(f"experiment={series.name}",),
        started=time_of(number),
        ended=time_of(number, 40) if outcome else "",
        inputs=f"{number:064x}",
        changes=first if number == 1 else later,
        provenance=PROVENANCE,
        compared_with=current.run if current else "",
        steps={
            "curate": Step(time_of(number), time_of(number, 6), 0),
            "finetune": Step(time_of(number, 6), time_of(number, 30), 0),
            "evaluate": Step(time_of(number, 30), time_of(number, 40), 0),
        },
        outcome=outcome,
        sentence=ENDS.get(outcome, ""),
        kept=200,
        export="finetune/export-step-00000200" if outcome == "promoted" else "",
    )
    return replace(known, **changes)


def retrain(series: Series, number: int, outcome: str | None = None, **changes: Any) -> Record:
    """Plant a retraining and its line in the history; "" as the outcome leaves it unfinished."""
    outcome = outcome_of(number) if outcome is None else outcome
    record = record_of(series, number, outcome, **changes)
    run_dir = series.run_dir(record.run)
    write_curation(run_dir, number)
    if outcome not in ("", "abandoned"):
        gate = {"rejected": "failed", "undecided": "undecided"}.get(outcome, "passed")
        write_evaluation(run_dir, number, gate)
    record.save(run_dir)
    record = replace(record, summary=summary.of(run_dir))
    record.save(run_dir)
    for name in ("retrain.html", "curate/report.html", "evaluate/report.html"):
        (run_dir / name).parent.mkdir(exist_ok=True)
        (run_dir / name).write_text("<html>")
    if outcome == "promoted":
        current = series.current()
        since = (record.ended, "promoted", current.run if current else "")
        series.point_to(Current(record.run, f"{record.run}/{record.export}", *since))
    if outcome:
        append(series, outcome, record)
    return record


def append(series: Series, event: str, record: Record) -> None:
    """A line of the history at the record's own time."""
    series.add(event, record.run, record.sentence, record.summary)
    path = series.folder / "history.jsonl"
    *before, last = path.read_text().splitlines()
    path.write_text(
        "\n".join([*before, json.dumps(json.loads(last) | {"when": record.ended})]) + "\n"
    )


def plant(root: Path, retrainings: int, name: str = "mine") -> Series:
    """A series of so many retrainings."""
    series = Series(root, name)
    series.folder.mkdir(parents=True)
    for number in range(1, retrainings + 1):
        retrain(series, number)
    return series
