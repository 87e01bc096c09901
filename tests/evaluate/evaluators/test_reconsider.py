"""The section shows the first pairs, hostile captions as text, and the command that takes the list."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
from PIL import Image

from evaluate.evaluators import reconsider
from evaluate.results import Metric
from tests.evaluate.measure.test_reconsider import gains


def measured(results, count=1, **changes):
    metric = Metric(float(count), n=512, groups=300, on="train")
    metrics = {**results.metrics, "pairs_to_reconsider": metric}
    return replace(results, metrics=metrics, **changes)


def test_pairs_and_the_command(results, tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "doubt.png")
    unseen = replace(results.reconsider[0], key="k-10", file="")
    found = measured(results, 2, reconsider=(*results.reconsider, unseen))
    [section] = reconsider.sections(found, tmp_path)
    assert "Of 512 training pictures" in section.body
    assert section.body.count("<img src=") == 1
    assert "&lt;img src=x" in section.body
    for text in (
        "-2.0 %",
        "similarity 0.200",
        "python -m curate.remove demo --from runs/demo/evaluate/reconsider.csv",
    ):
        assert text in section.body


def test_another_runs_curation_is_named(results, tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "doubt.png")
    known = results.provenance
    trained = {**known["finetune"], "data": {"run": "other"}}
    judged = {**known["evaluate"], "run": {"root": "/my runs", "name": "demo"}}
    provenance = {**known, "finetune": trained, "evaluate": judged}
    [section] = reconsider.sections(measured(results, provenance=provenance), tmp_path)
    command = "curate.remove '/my runs/other' --from '/my runs/demo/evaluate/reconsider.csv'"
    assert command.replace("'", "&#39;") in section.body


def test_where_nothing_is_listed_or_measured(results, tmp_path):
    [section] = reconsider.sections(measured(results, 0, reconsider=()), tmp_path)
    assert "none has a caption that does not help" in section.body
    assert not list(reconsider.sections(results, tmp_path))


@pytest.mark.parametrize(
    ("found", "value", "reason"),
    [
        (None, None, "left out by reconsider.pictures=0"),
        (gains([0.1] * 40 + [-0.1, -0.2]), 2, ""),
        (gains([0.1] * 40, reference=[-0.1] * 40), None, "captions help this model too little"),
    ],
)
def test_the_metric_counts_them(found, value, reason):
    [(_, metric)] = reconsider.measure(SimpleNamespace(caption_gains=found))  # type: ignore[arg-type]
    assert metric.value == value
    assert reason in metric.reason
