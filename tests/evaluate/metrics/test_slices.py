"""A slice is named only where it is truly worse; intervals are those of other implementations."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from evaluate.metrics.slices import LEAST_GROUPS, Paired, Slice, judge, worst


def world(rng, pictures=64, effect=0.0):
    """Losses of grouped pictures, of which a quarter of the similarities may gain less by ``effect``.

    The difficulty of a picture goes with its similarity, and siblings are alike in all.
    """
    groups: list[str] = []
    while len(groups) < pictures:
        size = 1 if rng.random() < 0.7 else int(rng.integers(2, 8))
        groups += [f"g{len(groups)}"] * min(size, pictures - len(groups))
    _, code = np.unique(groups, return_inverse=True)
    count = code.max() + 1
    base = rng.lognormal(0, 0.4, count)[code] * rng.lognormal(0, 0.2, pictures)
    similarity = rng.normal(0, 1, pictures) + 0.5 * np.log(base)
    length = rng.normal(0, 1, pictures) + rng.normal(0, 1, count)[code]
    parts = {
        "source": pd.Categorical(rng.integers(0, 4, pictures).astype(str)),
        "length": pd.Categorical(pd.qcut(length, 4, labels=list("abcd"))),
        "similarity": pd.Categorical(pd.qcut(similarity, 4, labels=["lowest", "2", "3", "4"])),
        "duplicates": pd.Categorical(np.where(np.bincount(code)[code] > 1, "with", "alone")),
    }
    ratio = 0.8 + rng.normal(0, 0.08, count)[code] + rng.normal(0, 0.04, pictures)
    ratio += effect * np.asarray(parts["similarity"] == "lowest")
    return Paired(base * ratio, base, groups), parts


def test_nothing_is_named_where_nothing_differs():
    runs = 200
    named = sum(
        any(found.is_worse for found in judge(*world(np.random.default_rng(seed))))
        for seed in range(runs)
    )
    assert named / runs <= 0.05


def test_a_slice_that_gained_less_is_named():
    runs = 60
    found = [worst(judge(*world(np.random.default_rng(seed), 128, 0.15))) for seed in range(runs)]
    named = [one for one in found if one and one.is_worse]
    assert len(named) / runs >= 0.9
    assert sum(
        (one.dimension, one.label) == ("similarity", "lowest") for one in named
    ) >= 0.9 * len(named)


def half(count):
    return pd.Categorical(["first"] * count + ["second"] * count)


def test_a_change_is_of_the_slices_own_loss():
    base = np.array([1.0] * 10 + [10.0] * 10)
    base += np.tile([-0.1, 0.1], 10)
    kept = base * np.array([0.9] * 10 + [0.7] * 10)
    groups = [f"g{i}" for i in range(20)]
    first, second = judge(Paired(kept, base, groups), {"half": half(10)})
    assert first.change.value == pytest.approx(-0.1)
    assert second.change.value == pytest.approx(-0.3)
    assert first.difference.value == pytest.approx(0.2)
    assert first.is_worse
    assert not second.is_worse
    assert (first.pictures, first.groups) == (10, 10)


def test_the_interval_of_a_change_is_that_of_a_ratio():
    """Against the jackknife of the ratio (Cochran 1977, section 6.17)."""
    from scipy import stats

    rng = np.random.default_rng(0)
    base = rng.lognormal(0, 0.3, 60)
    kept = base * rng.normal(0.8, 0.1, 60)
    groups = [f"g{i}" for i in range(60)]
    first, _ = judge(Paired(kept, base, groups), {"half": half(30)})
    b, k = base[:30], kept[:30]
    left_out = np.array([np.delete(k, i).sum() / np.delete(b, i).sum() - 1 for i in range(30)])
    error = np.sqrt(29 / 30 * ((left_out - left_out.mean()) ** 2).sum())
    assert first.change.value == pytest.approx(k.sum() / b.sum() - 1)
    expected = error * stats.t.ppf(0.975, 29)
    assert first.change.high - first.change.value == pytest.approx(expected, rel=0.02)


def test_siblings_count_once():
    rng = np.random.default_rng(2)
    base, kept = rng.lognormal(0, 0.3, 40), rng.lognormal(-0.2, 0.3, 40)
    names = [f"g{i}" for i in range(40)]
    alone = judge(Paired(kept, base, names), {"half": half(20)})
    twice = judge(
        Paired(np.tile(kept, 2), np.tile(base, 2), names * 2),
        {"half": pd.Categorical([*half(20), *half(20)])},
    )
    for one, other in zip(alone, twice, strict=True):
        assert other.pictures == 2 * one.pictures
        assert other.groups == one.groups
        assert other.difference.low == pytest.approx(one.difference.low)


def test_slices_of_few_groups_are_not_judged_and_cost_nothing():
    losses, _ = world(np.random.default_rng(3), 120)
    few = pd.Categorical(["few"] * (LEAST_GROUPS - 1) + ["rest"] * (120 - LEAST_GROUPS + 1))
    losses = Paired(losses.kept, losses.base, [f"g{i}" for i in range(120)])
    alone = judge(losses, {"half": half(60)})
    both = judge(losses, {"few": few, "half": half(60)})
    assert [found.difference for found in both[:2]] == [None, None]
    assert (both[0].pictures, both[0].groups) == (LEAST_GROUPS - 1, LEAST_GROUPS - 1)
    assert both[2:] == alone
    assert worst(both[:2]) is None


def test_pictures_that_are_divided_twice_alike_are_judged_once():
    losses, parts = world(np.random.default_rng(4))
    once = judge(losses, {"source": parts["source"]})
    same = parts["source"].rename_categories({str(i): f"part {i}" for i in range(4)})
    assert judge(losses, {"source": parts["source"], "again": same}) == once


def test_the_correction_is_for_all_slices_that_are_judged():
    losses, parts = world(np.random.default_rng(5), 128)
    alone = judge(losses, {"length": parts["length"]})
    among = [found for found in judge(losses, parts) if found.dimension == "length"]
    for one, other in zip(alone, among, strict=True):
        assert one.change == other.change
        assert other.difference.low < one.difference.low
        assert other.among_all.low < one.among_all.low < one.change.low


def test_the_worst_is_one_that_is_worse_if_there_is_any():
    from finetune.intervals import Estimate

    unclear = Slice("a", "b", 9, 9, difference=Estimate(0.3, -0.1, 0.7, 9, 9))
    clear = Slice("a", "c", 40, 40, difference=Estimate(0.2, 0.1, 0.3, 40, 40))
    assert worst([unclear, clear]) is clear
    assert worst([unclear, Slice("a", "d", 3, 3)]) is unclear
