"""Composition, structure and detail: each is measured at its own noise levels and named by what it did."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from evaluate.evaluators import noise_thirds
from evaluate.evaluators.noise_thirds import THIRDS, third
from evaluate.results import Metric, Results
from finetune.heldout import relative


@pytest.mark.parametrize("bins", [3, 5, 10, 20])
def test_the_thirds_divide_the_levels_with_the_most_noise_last(bins: int):
    levels = [list(range(bins))[third(name, bins)] for name in reversed(THIRDS)]
    assert [level for part in levels for level in part] == list(range(bins))  # detail first
    assert max(map(len, levels)) - min(map(len, levels)) <= 1


def test_a_gain_at_much_noise_is_one_of_composition():
    base = np.ones((4, 9, 1))
    better = base.copy()
    better[:, 6:] = 0.5  # the three levels with the most noise

    def gain(row: int, levels: slice) -> Metric:
        assert row == 2
        return Metric(float((relative(better, base, None, levels) - 1).mean()))

    evaluation: Any = SimpleNamespace(
        kept=2, gain=gain, config=SimpleNamespace(grid=SimpleNamespace(bins=9))
    )
    found = dict(noise_thirds.measure(evaluation))
    assert {name: metric.value for name, metric in found.items()} == {
        "gain_composition": -0.5,
        "gain_structure": 0.0,
        "gain_detail": 0.0,
    }
    evaluation.kept = 0
    assert all(metric.value is None for _, metric in noise_thirds.measure(evaluation))


def test_the_section_names_the_third_that_gained_and_the_one_that_lost(results: Results):
    gains = {
        "gain_composition": Metric(-0.3, -0.4, -0.2, 64, 50, "test"),
        "gain_structure": Metric(-0.1, -0.2, 0.0, 64, 50, "test"),
        "gain_detail": Metric(0.05, 0.02, 0.08, 64, 50, "test"),
    }
    (section,) = noise_thirds.sections(replace(results, metrics=results.metrics | gains))
    assert "The loss fell most in composition, by 30.0 %, and detail got worse." in section.body
    assert "-30.0 % [-40.0, -20.0]" in section.body
    (nothing,) = noise_thirds.sections(results)
    assert "Not measured" in nothing.body
