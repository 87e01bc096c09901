"""Each metric of the held-out loss compares the checkpoints that its name says."""

from __future__ import annotations

from typing import Any

import pytest

from evaluate.evaluators import heldout

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
    assert {(m.value, m.groups) for m in found.values()} == {(None, 31)}
