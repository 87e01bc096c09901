"""Vendi score: closed forms, a planted collapse, and the interval of a ratio."""

from __future__ import annotations

import numpy as np
import pytest

from evaluate.measure.features import unit
from evaluate.metrics.vendi import log_ratio, vendi
from finetune.intervals import of_groups


def test_closed_forms():
    assert vendi(np.eye(7)) == pytest.approx(7)
    assert vendi(np.tile([0.6, 0.8], (7, 1))) == pytest.approx(1)
    assert vendi(np.repeat(np.eye(3), 4, axis=0)) == pytest.approx(3)
    c = np.cos(0.4)  # two pictures at an angle: eigenvalues (1 ± c) / 2
    entropy = -sum(p * np.log(p) for p in ((1 + c) / 2, (1 - c) / 2))
    two = np.array([[1, 0], [c, np.sin(0.4)]])
    assert vendi(two) == pytest.approx(np.exp(entropy))


def test_a_group_counts_as_one_picture():
    features = unit(np.random.default_rng(0).normal(size=(6, 5)))
    copied = features[[0, 0, 0, 1, 2, 3, 4, 4, 5]]
    assert vendi(copied, list("aaabcdeef")) == pytest.approx(vendi(features))
    assert vendi(copied) < vendi(features) - 0.01


def test_collapse_lowers_it():
    rng = np.random.default_rng(0)
    varied = unit(rng.normal(size=(40, 16)))
    found = [vendi(unit((1 - c) * varied + c * np.ones(16) / 4)) for c in (0, 0.3, 0.6, 0.9, 1)]
    assert found == sorted(found, reverse=True)
    assert found[-1] == pytest.approx(1)


def test_the_values_of_a_ratio_leave_each_group_out_once():
    rng = np.random.default_rng(0)
    base = unit(rng.normal(size=(12, 6)))
    groups = [*"aabcdefghijk"]
    assert log_ratio(base, base, groups).tolist() == [0.0] * 11
    kept = unit(base + 0.5)
    values = log_ratio(kept, base, groups)

    def ratio(rows: list[int]) -> float:
        of = [groups[i] for i in rows]
        return float(np.log(vendi(kept[rows], of) / vendi(base[rows], of)))

    assert values.mean() == pytest.approx(ratio(list(range(12))))
    without_a, without_k = ratio(list(range(2, 12))), ratio(list(range(11)))
    assert values[0] - values[10] == pytest.approx(10 * (without_k - without_a))
    assert len(values) == 11


@pytest.mark.parametrize("collapse", [0.0, 0.4])
def test_the_interval_covers_the_ratio(collapse: float):
    """Of as many pictures as are measured: the score grows with their number."""
    rng = np.random.default_rng(1)

    def draw() -> tuple[np.ndarray, np.ndarray, list[str]]:
        names = np.repeat(np.arange(32), rng.integers(1, 4, 32))
        shown = rng.normal(size=(32, 24))[names]
        base = unit(shown + 0.6 * rng.normal(size=shown.shape) + 0.5)
        kept = unit((1 - collapse) * shown + 0.6 * rng.normal(size=shown.shape) + 0.5)
        return kept, base, [str(name) for name in names]

    def ratio() -> float:
        kept, base, groups = draw()
        return float(np.log(vendi(kept, groups) / vendi(base, groups)))

    truth, covered = np.mean([ratio() for _ in range(300)]), 0
    for _ in range(120):
        found = of_groups(log_ratio(*draw()), 0)
        covered += found.low <= truth <= found.high
    assert covered / 120 >= 0.9
