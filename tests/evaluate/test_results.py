"""report.json comes back as it was written, and anything else is refused by name."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from curate.run.schema import UserError
from evaluate.results import Metric, Results, RetentionPoint, RetentionResult, load, points, save
from finetune.intervals import Estimate


def test_round_trip(results: Results, tmp_path):
    save(results, tmp_path / "report.json")
    assert load(tmp_path / "report.json") == results
    save(load(tmp_path / "report.json"), tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == (tmp_path / "report.json").read_bytes()


def test_trackers_get_curves_over_checkpoints_and_the_metrics_at_the_kept_one(results: Results):
    """The fixture's numbers, by step; what was not measured is null, which no tracker shows."""
    retained = RetentionResult((RetentionPoint(900, 7200, Metric(0.3)),), ())
    found: dict[str, dict[int, float | None]] = {}
    for step, values in points(replace(results, retention=retained)):
        for name, value in values.items():
            assert step not in found.setdefault(name, {})
            found[name][step] = value
    assert found == {
        "checkpoint/val": {0: 0.0, 450: -0.0612, 900: -0.03},
        "checkpoint/train_probe": {0: 0.0, 450: -0.07, 900: -0.12},
        "checkpoint/retention": {900: 0.3},
        "heldout_change": {450: -0.0612},
        "exported_change": {450: -0.0612},
        "clip_base": {450: 0.4},
        "clip_kept": {450: 0.6},
        "clip_change": {450: 0.2},
        "test_change": {450: None},
    }


def test_six_significant_digits(results: Results, tmp_path):
    found = replace(results, metrics={"heldout_change": Metric(0.123456789, n=1)})
    save(found, tmp_path / "report.json")
    assert load(tmp_path / "report.json").metrics["heldout_change"].value == 0.123457


def test_not_a_number_becomes_null_with_a_reason():
    metric = Metric.of(Estimate(float("nan"), 0.0, 1.0, 7, 7))
    assert metric == Metric(n=7, groups=7, reason="not a finite number")


def test_not_a_number_never_reaches_the_file(results: Results, tmp_path):
    found = replace(results, metrics={"x": Metric(float("nan"))})
    with pytest.raises(ValueError, match="JSON"):
        save(found, tmp_path / "report.json")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: r.pop("gate"), "report: missing or unknown keys: gate"),
        (lambda r: r.update(extra=1), "report: missing or unknown keys: extra"),
        (lambda r: r["verdict"].update(kept="450"), r"report\.verdict\.kept: expected int"),
        (lambda r: r["checks"].append(3), r"report\.checks\[1\]"),
        (lambda r: r["metrics"]["clip_base"].pop("n"), r"report\.metrics\.clip_base: missing"),
        (lambda r: r.update(gate=None), r"report\.gate: expected str"),
    ],
)
def test_a_wrong_file_is_refused_by_the_key(results: Results, tmp_path, change, message):
    path = tmp_path / "report.json"
    save(results, path)
    content = json.loads(path.read_text())
    del content["checksum"]
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=message):
        load(path)


def test_another_version_and_no_file_say_what_to_type(results: Results, tmp_path):
    path = tmp_path / "demo" / "evaluate" / "report.json"
    with pytest.raises(FileNotFoundError, match=r"python -m evaluate run\.name=demo"):
        load(path)
    save(replace(results, schema_version=99), path)
    with pytest.raises(UserError, match="schema_version 99"):
        load(path)
