"""Each metric of the held-out loss compares the checkpoints that its name says."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from evaluate.evaluators import heldout
from evaluate.results import NOT_ASKED, Metric
from tests.evaluate.conftest import scores

APART = 0.01  # the noise of planted scores moves their means by less


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("heldout_change", 0.8 - 1),
        ("exported_change", 0.95 - 1),
        ("heldout_change_last", 0.9 - 1),
        ("heldout_since_best", 0.9 - 0.8),
    ],
)
def test_a_change_is_from_the_row_and_to_the_row_of_its_name(planted, name: str, change: float):
    found: Any = dict(heldout.measure(planted()))[name]
    assert found.value == pytest.approx(change, abs=APART)
    assert found.low < found.value < found.high
    assert found.n == 40


def test_too_few_pictures_measure_nothing(planted):
    found = dict(heldout.measure(planted(items=31)))
    assert found.keys() == heldout.EVALUATOR.metrics.keys()
    asked = [m for m in found.values() if not m.reason.startswith(NOT_ASKED)]
    assert {(m.value, m.groups) for m in asked} == {(None, 31)}


def test_what_a_training_started_with_is_measured_apart(planted):
    evaluation = planted()
    val, train_probe = (scores([1, 0.85], 40, noise=0, seed=seed)[1] for seed in (0, 1))
    evaluation.evidence = replace(evaluation.evidence, start_val=val, start_train_probe=train_probe)
    found: Any = dict(heldout.measure(evaluation))
    assert found["start_change"].value == pytest.approx(0.85 - 1, abs=APART)
    assert found["heldout_since_start"].value == pytest.approx(0.8 - 0.85, abs=APART)
    assert found["heldout_change"].value == pytest.approx(0.8 - 1, abs=APART)


@pytest.mark.parametrize(
    ("low", "high", "state", "said"),
    [
        (0.02, 0.04, "bad", "The checkpoint to keep is worse than what training started with"),
        (-0.04, -0.02, "good", "no worse than what training started with"),
        (None, None, None, ""),
    ],
)
def test_a_checkpoint_that_is_worse_than_the_start_is_a_cost(low, high, state, said):
    metric = Metric() if low is None else Metric((low + high) / 2, low, high, 40, 40, "val")
    found = list(heldout.findings({"heldout_since_start": metric}))
    assert [finding.state for finding in found] == ([state] if state else [])
    assert all(said in finding.text for finding in found)
