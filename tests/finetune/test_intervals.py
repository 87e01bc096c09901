"""Intervals cover what they claim to, and pairing is worth what it costs nothing."""

from __future__ import annotations

import numpy as np
import pytest

from finetune.intervals import Bootstrap, detectable_change, standard_error


def test_interval_covers_the_true_mean_as_often_as_claimed():
    rng = np.random.default_rng(1)
    samples = rng.exponential(1.0, (400, 64))
    estimates = [Bootstrap(500, seed).mean(sample) for seed, sample in enumerate(samples)]
    covered = np.mean([estimate.low <= 1.0 <= estimate.high for estimate in estimates])
    assert 0.90 < covered < 0.97


def test_interval_agrees_with_the_normal_one_on_normal_values():
    values = np.random.default_rng(2).normal(3, 2, 400)
    estimate = Bootstrap(4000).mean(values)
    half = 1.96 * standard_error(values)
    assert estimate.value == pytest.approx(values.mean())
    assert estimate.low == pytest.approx(values.mean() - half, abs=0.03)
    assert estimate.high == pytest.approx(values.mean() + half, abs=0.03)


def test_same_values_same_interval_and_constant_values_none():
    values = np.random.default_rng(3).normal(size=50)
    assert Bootstrap().mean(values) == Bootstrap().mean(values.copy())
    assert Bootstrap(seed=1).mean(values).low != Bootstrap().mean(values).low
    constant = Bootstrap().mean(np.full(40, 0.5))
    assert (constant.low, constant.high, constant.n) == (0.5, 0.5, 40)


def test_lower_confidence_is_narrower():
    values = np.random.default_rng(4).normal(size=80)
    wide, narrow = Bootstrap().mean(values), Bootstrap().mean(values, confidence=0.9)
    assert wide.low < narrow.low < narrow.high < wide.high


def test_empty_values_are_refused():
    with pytest.raises(ValueError, match="non-empty"):
        Bootstrap().mean(np.array([]))


def test_standard_error_and_detectable_change_by_hand():
    assert standard_error(np.array([1.0, 3.0])) == pytest.approx(1.0)  # sd sqrt(2) over sqrt(2)
    assert detectable_change(np.array([1.0, 3.0])) == pytest.approx(2.802)
