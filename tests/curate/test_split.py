"""The split moves nobody, cuts no group, and meets its shares and floors."""

import pandas as pd
import pytest

from curate.config import SplitConfig
from curate.split import assign, position

PLAIN = SplitConfig(val=0.05, test=0.05, minimum=0)


def groups(count, copies=1):
    return pd.Series([f"{number // copies:08x}" for number in range(count)])


def test_shares():
    sides = assign(groups(20_000), PLAIN).value_counts(normalize=True)
    assert sides["val"] == pytest.approx(0.05, abs=0.006)  # four standard deviations
    assert sides["test"] == pytest.approx(0.05, abs=0.006)


def test_adding_data_moves_nobody():
    before = assign(groups(1_000), PLAIN)
    after = assign(groups(5_000), PLAIN)
    assert (before == after[:1_000]).all()


def test_a_group_is_never_cut():
    ids = groups(3_000, copies=3)
    assert assign(ids, SplitConfig(minimum=100)).groupby(ids).nunique().max() == 1


@pytest.mark.parametrize("count", [320, 400, 640, 3_000])
def test_floor_is_met(count):
    sides = assign(groups(count), SplitConfig(minimum=32)).value_counts()
    assert sides["val"] >= 32
    assert sides["test"] >= 32
    if count < 640:  # where the share alone would not do, the floor takes no more than it needs
        assert sides["val"] <= max(32, 0.05 * count + 4 * (0.05 * count) ** 0.5)


def test_a_floor_takes_at_most_a_tenth():
    assert assign(groups(50), SplitConfig(minimum=32)).value_counts()["val"] == 5
    assert set(assign(groups(1), SplitConfig(minimum=32))) == {"train"}


def test_growing_past_the_floor_only_returns_groups_to_train():
    before, after = (assign(groups(n), SplitConfig(minimum=32)) for n in (320, 2_000))
    moved = before[before != after[:320]]
    assert len(moved) > 0
    assert set(after[moved.index]) == {"train"}


def test_a_side_of_no_share_is_empty():
    sides = assign(groups(1_000), SplitConfig(val=0.1, test=0, minimum=32))
    assert set(sides) == {"train", "val"}


def test_another_seed_deals_anew():
    assert position("a", 0) != position("a", 1)
    assert 0 <= position("a", 0) < 1
