"""The rule of overfitting at its boundaries; planted runs are in the tests of the verdict."""

from __future__ import annotations

import numpy as np
import pytest

from finetune.overfitting import Evidence, diverged, overfitting, symptom, worse_than_best


def exact(val: list[float], train_probe: list[float]) -> Evidence:
    """Forty pictures that all have the same score, so that intervals have no width."""
    return Evidence(*(np.array(means)[:, None] * np.ones(40) for means in (val, train_probe)))


def test_tolerance_is_a_twentieth_of_the_gain_and_never_below_the_negligible():
    assert exact([1, 0.9, 0.95], [1, 1, 1]).tolerance == pytest.approx(0.005)
    assert exact([1, 0.99, 0.995], [1, 1, 1]).tolerance == pytest.approx(0.002)


@pytest.mark.parametrize(
    ("val", "train_probe", "expected"),
    [
        ([1, 0.9, 0.9049], [1, 0.9, 0.8], None),
        ([1, 0.9, 0.9051], [1, 0.9, 0.8], "overfitting"),
        ([1, 0.9, 0.9051], [1, 0.9, 0.9], None),  # training pictures did not improve either
        ([1, 0.9, 0.89], [1, 0.9, 0.5], None),  # the gap alone
        ([1, 1.0019], [1, 1.0019], None),
        ([1, 1.0021], [1, 1.0021], "diverged"),
        ([1, 1.0021], [1, 0.9], "overfitting"),  # the best is the base
    ],
)
def test_boundaries(val: list[float], train_probe: list[float], expected: str | None):
    assert symptom(exact(val, train_probe)) == expected


def test_worse_than_the_best_is_not_yet_overfitting():
    regressing = exact([1, 0.9, 0.95], [1, 0.9, 0.9])
    assert worse_than_best(regressing)
    assert not overfitting(regressing)


@pytest.mark.parametrize("split", ["val", "train_probe"])
def test_not_a_number_is_divergence(split: str):
    broken = exact([1, 0.9, 0.8], [1, 0.9, 0.8])
    getattr(broken, split)[2, 5] = np.nan
    assert diverged(broken)
    assert broken.best == (1 if split == "val" else 2)


def test_evidence_needs_a_checkpoint():
    with pytest.raises(ValueError, match="at least one checkpoint"):
        Evidence(np.ones((1, 40)), np.ones((1, 40)))
