"""Intervals cover the truth as often as they claim, whatever the groups that pictures are drawn in."""

from __future__ import annotations

import numpy as np
import pytest

from finetune.intervals import estimate, group_means, standard_error
from tests.finetune.grouped import drawn_groups


@pytest.mark.parametrize("pictures", [32, 64, 128])
def test_grouped_pictures_are_covered_as_often_as_claimed(pictures: int):
    """Groups as in the demo (up to 20 pictures, one draw for all of them), and skewed effects."""
    rng = np.random.default_rng(pictures)
    covered = []
    for _ in range(1000):
        groups = drawn_groups(rng, pictures)
        shared = rng.gamma(4.0, 0.5, len(set(groups)))[np.unique(groups, return_inverse=True)[1]]
        found = estimate(shared + rng.normal(0, 0.3, pictures), groups)
        covered.append(found.low <= 2.0 <= found.high)
    assert 0.92 <= np.mean(covered) <= 0.97


def test_pictures_taken_for_independent_ones_are_not():
    """What the groups are for: without them nominal 95 % is far from it."""
    rng = np.random.default_rng(0)
    covered = []
    for _ in range(400):
        groups = drawn_groups(rng, 64)
        shared = rng.normal(0, 1, len(set(groups)))[np.unique(groups, return_inverse=True)[1]]
        found = estimate(shared + rng.normal(0, 0.1, 64))
        covered.append(found.low <= 0 <= found.high)
    assert np.mean(covered) < 0.85


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
