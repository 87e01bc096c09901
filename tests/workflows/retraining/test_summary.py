"""What a history keeps of a run: figures that were planted, and nothing of what is missing."""

from __future__ import annotations

import json

import pytest

from curate.run.files import write_certified
from evaluate.results import SCHEMA_VERSION
from tests.workflows.retraining import planted
from workflows.retraining import summary
from workflows.retraining.series import Series


@pytest.fixture
def run_dir(tmp_path):
    series = Series(tmp_path, "mine")
    series.folder.mkdir()
    return series.run_dir(planted.retrain(series, 1).run)


def test_the_figures_are_those_of_the_files(run_dir):
    found = summary.of(run_dir)
    funnel = json.loads((run_dir / "curate/funnel.json").read_text())
    assert found["version"] == 1
    data = found["data"]
    assert (data["pairs_in"], data["kept"], data["dropped"]) == (
        4000,
        funnel["kept"],
        4000 - funnel["kept"],
    )
    assert data["keep_rate"] == funnel["kept"] / 4000
    assert data["images"] == funnel["samples"]
    assert [rule["rule"] for rule in data["rules"]] == [
        "clip_similarity",
        "duplicate",
    ]  # not "unreadable"
    judged = found["evaluation"]
    assert (judged["verdict"], judged["gate"], judged["kept"], judged["last"]) == (
        "improving",
        "passed",
        200,
        225,
    )
    expected = planted.metrics(1)["test_change"]
    assert judged["metrics"]["test_change"] == {
        k: v for k, v in expected.items() if v not in (None, "")
    }
    assert judged["metrics"]["against_change"] == {
        "reason": "not asked for, gate.against names no run"
    }
    assert found["seconds"] == {"curate": 360.0, "finetune": 1440.0, "evaluate": 600.0}
    assert "damaged" not in found
    json.dumps(found, allow_nan=False)


def test_stages_that_are_missing_are_left_out(run_dir, tmp_path):
    assert summary.of(tmp_path / "nowhere") == {"version": 1}
    (run_dir / "evaluate/report.json").unlink()
    (run_dir / "retrain.json").unlink()
    assert summary.of(run_dir).keys() == {"version", "data"}
    (run_dir / "curate/funnel.json").unlink()
    assert summary.of(run_dir) == {"version": 1}


def test_what_is_damaged_is_named(run_dir):
    for name in ("curate/funnel.json", "evaluate/report.json", "retrain.json"):
        path = run_dir / name
        path.write_text(path.read_text().replace("1", "2", 1))
    found = summary.of(run_dir)
    assert found["damaged"] == ["curate/funnel.json", "evaluate/report.json", "retrain.json"]
    assert found.keys() == {"version", "damaged"}


def test_a_report_of_another_version_is_not_read(run_dir):
    write_certified(run_dir / "evaluate/report.json", {"schema_version": SCHEMA_VERSION - 1})
    assert "evaluation" not in summary.of(run_dir)


def test_several_curations_are_added_up(run_dir):
    planted.write_curation(run_dir.with_name("photos"), 3)
    (run_dir / "finetune").mkdir()
    (run_dir / "finetune/config.yaml").write_text("data:\n  runs: {mine-0001: 1.0, photos: 0.3}\n")
    one, other = (
        json.loads((run_dir.with_name(name) / "curate/funnel.json").read_text())
        for name in ("mine-0001", "photos")
    )
    data = summary.of(run_dir)["data"]
    assert data["pairs_in"] == 4000 + 4600
    assert data["keep_rate"] == (one["kept"] + other["kept"]) / 8600
    assert data["images"]["train"] == one["samples"]["train"] + other["samples"]["train"]
