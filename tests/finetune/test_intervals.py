"""Intervals cover the truth as often as they claim, whatever the groups that pictures are drawn in."""

from __future__ import annotations

import numpy as np
import pytest

from evaluate.selftest import simulation
from finetune.intervals import estimate, group_means, standard_error, two_sample


@pytest.mark.parametrize("pictures", [32, 64, 128])
def test_grouped_pictures_are_covered_as_often_as_claimed(pictures: int):
    """Groups as in the demo (up to 20 pictures, one draw for all of them), and skewed effects."""
    held = simulation.coverage(np.random.default_rng(pictures), pictures, 1000)
    assert 0.92 <= held <= 0.97


def test_pictures_taken_for_independent_ones_are_not():
    """What the groups are for: without them nominal 95 % is far from it."""
    assert simulation.coverage(np.random.default_rng(0), 64, 400, grouped=False) < 0.85


def test_interval_by_hand():
    found = estimate(
        np.array([1.0, 2.0, 3.0])
    )  # t(2) = 4.3027 at 97.5 %, standard error 1 / sqrt(3)
    assert found.value == pytest.approx(2.0)
    assert found.high - found.value == pytest.approx(4.3027 / np.sqrt(3), rel=1e-4)
    assert (found.n, found.groups) == (3, 3)


def test_each_group_counts_once():
    values, groups = np.array([1.0, 1.0, 1.0, 1.0, 5.0]), ["a", "a", "a", "a", "b"]
    found = estimate(values, groups)
    assert found.value == 3.0
    assert (found.n, found.groups) == (5, 2)
    alone = estimate(np.array([1.0, 5.0]))
    assert (found.low, found.high) == (alone.low, alone.high)


def test_group_means_of_a_table_in_order_of_first_appearance():
    table = np.arange(8.0).reshape(4, 2)
    np.testing.assert_array_equal(
        group_means(table, ["b", "a", "b", "a"]), [[2.0, 3.0], [4.0, 5.0]]
    )


def test_equal_values_have_no_width_and_a_single_group_an_infinite_one():
    constant = estimate(np.full(40, 0.5))
    assert (constant.low, constant.high, constant.n) == (0.5, 0.5, 40)
    single = estimate(np.array([1.0, 2.0]), ["a", "a"])
    assert (single.value, single.low, single.high) == (1.5, -np.inf, np.inf)


def test_lower_confidence_is_narrower():
    values = np.random.default_rng(4).normal(size=80)
    wide, narrow = estimate(values), estimate(values, confidence=0.9)
    assert wide.low < narrow.low < narrow.high < wide.high


def test_empty_values_are_refused():
    with pytest.raises(ValueError, match="non-empty"):
        estimate(np.array([]))


def test_standard_error_by_hand():
    assert standard_error(np.array([1.0, 3.0])) == pytest.approx(1.0)  # sd sqrt(2) over sqrt(2)


@pytest.mark.parametrize("groups", [(10, 10), (12, 40)])
def test_two_samples_of_groups_cover_their_difference(groups):
    """Unequal sizes, unequal variances, values alike within a group: 95 % of intervals hold the truth."""
    rng = np.random.default_rng(0)
    covered = 0
    runs = 1500
    for _ in range(runs):
        samples = []
        for count, mean, scale in zip(groups, (0.3, -0.2), (2.0, 0.5), strict=True):
            names = np.repeat([f"g{i}" for i in range(count)], rng.integers(1, 6, count))
            level = dict(zip(dict.fromkeys(names), rng.normal(mean, scale, count), strict=True))
            samples.append(
                (np.array([level[n] for n in names]) + rng.normal(0, 0.1, len(names)), names)
            )
        found = two_sample(*samples[0], *samples[1])
        covered += found.low <= 0.5 <= found.high
    assert 0.935 <= covered / runs <= 0.965


def test_two_samples_are_welchs():
    """Against scipy's, and against a closed form where both have one value."""
    from scipy.stats import ttest_ind

    rng = np.random.default_rng(1)
    a, b = rng.normal(0, 1, 9), rng.normal(1, 3, 21)
    found = two_sample(a, [f"a{i}" for i in range(9)], b, [f"b{i}" for i in range(21)])
    expected = ttest_ind(a, b, equal_var=False).confidence_interval()
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert (found.n, found.groups) == (30, 30)
    none = two_sample(np.zeros(3), ["a", "b", "c"], np.zeros(2), ["d", "e"])
    assert (none.value, none.low, none.high) == (0, 0, 0)
    single = two_sample(np.ones(3), ["a"] * 3, b, [f"b{i}" for i in range(21)])
    assert single.high == np.inf
    with pytest.raises(ValueError, match="not empty"):
        two_sample(np.zeros(0), [], b, ["b"] * 21)
