"""The split moves nobody, cuts no group, and meets its shares and floors."""

import random

import numpy as np
import pandas as pd
import pytest

from curate.decide.config import SMALLEST_JUDGED, SplitConfig
from curate.decide.split import leaks, positions
from tests.curate.decide.judging import assign

PLAIN = SplitConfig(val=0.05, test=0.05, minimum=0)


def groups(count, copies=1):
    return pd.Series([f"{number // copies:016x}" for number in range(count)])


def oracle(groups, config, frozen=None):
    """The side of each image by plain loops over groups in the order of their place; ``frozen`` is by group."""
    frozen = frozen or {}
    size = {group: groups.count(group) for group in groups}
    place = {group: place_of(int(group, 16), config.seed) for group in size}
    count = len(groups)
    floor = min(config.minimum, count // 10)
    most = max(floor, min(config.val or 1, config.test or 1) * count, 1)
    movable = [g for g in size if size[g] <= min(most, 32) and g not in frozen]
    half = sum(size[group] for group in movable) // 2
    side = dict.fromkeys(size, "train") | {g: at for g, at in frozen.items() if g in size}
    for name, share in (("val", config.val), ("test", config.test)):
        distance = {g: place[g] if name == "val" else 1 - place[g] for g in movable}
        held_out, ordered = 0, sorted(movable, key=distance.__getitem__)
        there = [size[group] for group in size if frozen.get(group) == name]
        missing = max(0, min(config.minimum, SMALLEST_JUDGED) - len(there))
        in_groups = sum(size[group] for group in ordered[:missing])
        least = max(floor - sum(there), min(in_groups, count // 10 - sum(there)), 0)
        least = min(least, half)
        for group in ordered:
            if share and (distance[group] <= share or held_out < least):
                side[group] = name  # where both ends meet, test takes it
                held_out += size[group]
    return [side[group] for group in groups]


def place_of(group, seed):
    state = (group + (seed + 1) * 0x9E3779B97F4A7C15) % 2**64
    state = (state ^ state >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    state = (state ^ state >> 27) * 0x94D049BB133111EB % 2**64
    return (state ^ state >> 31) / 2**64


@pytest.mark.parametrize("seed", range(60))
def test_as_the_oracle(seed):
    draw = random.Random(seed)
    count = draw.choice([0, 1, 2, 9, 40, 300, 900])
    kinds = draw.choice([1, 5, count // 2 + 1, 10 * count + 1])
    groups = [f"{draw.randrange(kinds) * 0x9E3779B97F4A7C15 % 2**64:016x}" for _ in range(count)]
    shares = [draw.choice([0, 0.02, 0.05, 0.2, 0.45]) for _ in range(2)]
    config = SplitConfig(*shares, minimum=draw.choice([0, 4, 32, 128]), seed=draw.randrange(5))
    assert assign(pd.Series(groups, dtype="str"), config).tolist() == oracle(groups, config)


@pytest.mark.parametrize("seed", range(60))
def test_as_the_oracle_with_frozen_groups(seed):
    draw = random.Random(1_000 + seed)
    count = draw.choice([1, 9, 40, 300, 900])
    kinds = draw.choice([5, count // 2 + 1, 10 * count + 1])
    groups = [f"{draw.randrange(kinds) * 0x9E3779B97F4A7C15 % 2**64:016x}" for _ in range(count)]
    shares = [draw.choice([0, 0.02, 0.05, 0.2, 0.45]) for _ in range(2)]
    config = SplitConfig(*shares, minimum=draw.choice([0, 4, 31]), seed=draw.randrange(5))
    share = draw.choice([0.02, 0.1, 0.5])
    names = sorted({*groups})
    frozen = {g: draw.choice(["val", "test"]) for g in names if draw.random() < share}
    stays = pd.Series([frozen.get(group, "") for group in groups], dtype="str")
    found = assign(pd.Series(groups, dtype="str"), config, stays).tolist()
    assert found == oracle(groups, config, frozen)
    none = pd.Series([""] * count, dtype="str")
    assert assign(pd.Series(groups, dtype="str"), config, none).tolist() == oracle(groups, config)


def test_the_floor_in_groups_counts_the_frozen_ones():
    """Two groups of 16 are 32 images, of which the floor wants no more, but 30 groups are missing."""
    ids = pd.concat([groups(32, copies=16), groups(2_000).str.replace("^0", "f", regex=True)])
    ids = ids.reset_index(drop=True)
    config = SplitConfig(val=0.001, test=0.001, minimum=32, seed=3)
    stays = pd.Series(["val"] * 32 + [""] * 2_000, dtype="str")
    sides = assign(ids, config, stays)
    assert ids[sides == "val"].nunique() == SMALLEST_JUDGED
    assert (sides == "val").sum() == 32 + 30
    assert ids[sides == "test"].nunique() == SMALLEST_JUDGED


def test_a_frozen_group_stays_however_large_and_whatever_the_share():
    ids = pd.concat([pd.Series([f"{2**40:016x}"] * 200), groups(1_000)], ignore_index=True)
    stays = pd.Series(["test"] * 200 + [""] * 1_000, dtype="str")
    for seed in range(10):
        sides = assign(ids, SplitConfig(val=0.05, test=0, minimum=0, seed=seed), stays)
        assert set(sides[:200]) == {"test"}
        assert set(sides[200:]) == {"train", "val"}


def test_shares():
    sides = assign(groups(20_000), PLAIN).value_counts(normalize=True)
    assert sides["val"] == pytest.approx(0.05, abs=0.006)  # four standard deviations
    assert sides["test"] == pytest.approx(0.05, abs=0.006)


def test_adding_data_moves_nobody():
    before = assign(groups(1_000), PLAIN)
    after = assign(groups(5_000), PLAIN)
    assert (before == after[:1_000]).all()


def test_adding_data_never_holds_out_a_large_group():
    large = pd.Series([f"{2**40:016x}"] * 60)  # at first too large for a side of 51
    before, after = (pd.concat([large, groups(n)], ignore_index=True) for n in (970, 1_940))
    for seed in range(40):
        config = SplitConfig(val=0.05, test=0.05, minimum=0, seed=seed)
        assert (assign(before, config) == assign(after, config)[: len(before)]).all()


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


def test_the_floor_is_met_in_groups():
    """32 images may be 2 groups of 16, which is no verdict."""
    ids = groups(3_200, copies=16)
    sides = assign(ids, SplitConfig(val=0.01, test=0.01, minimum=32))
    for side in ("val", "test"):
        assert ids[sides == side].nunique() >= 20  # a tenth of the images
        assert (sides == side).sum() <= 0.1 * len(ids) + 16
    few = assign(groups(2_000, copies=4), SplitConfig(val=0.01, test=0.01, minimum=32))
    assert (few == "val").sum() == 4 * SMALLEST_JUDGED
    free = assign(ids, SplitConfig(val=0.01, test=0.01, minimum=0))
    assert (free != "train").sum() < 0.04 * len(ids)


def test_growing_past_the_floor_only_returns_groups_to_train():
    before, after = (assign(groups(n), SplitConfig(minimum=32)) for n in (320, 2_000))
    moved = before[before != after[:320]]
    assert len(moved) > 0
    assert set(after[moved.index]) == {"train"}


def test_a_side_of_no_share_is_empty():
    sides = assign(groups(1_000), SplitConfig(val=0.1, test=0, minimum=32))
    assert set(sides) == {"train", "val"}


def test_another_seed_deals_anew():
    groups = np.arange(10_000, dtype=np.uint64)
    one, other = positions(groups, 0), positions(groups, 1)
    assert abs(np.corrcoef(one, other)[0, 1]) < 0.04  # four standard deviations
    assert 0 <= one.min() < one.max() < 1


def test_positions_are_splitmix64s():
    assert positions(np.zeros(1, np.uint64), 0)[0] == 0xE220A8397B1DCDAF / 2**64  # its first output


def kept(key, side, phash, caption="a cat", url=None, kept=True, mirrored=None):
    known = {"key": key, "split": side, "phash": f"{phash:016x}", "caption": caption}
    known["phash_mirrored"] = f"{phash if mirrored is None else mirrored:016x}"
    return known | {"kept": kept, "url": url}


def test_leaks_are_found_across_sides_only():
    far = 0xFFFF_0000_FFFF
    rows = [
        kept("a", "train", 0b0000),
        kept("b", "val", 0b0111, "a dog"),  # 3 bits from a
        kept("b", "val", 0b0111, "a cat"),
        kept("c", "train", 0b0001),  # near a, on the same side, and 2 bits from b
        kept("d", "test", far, "x", url="http://x/1"),
        kept("e", "train", ~far & 2**64 - 1, "y", url="http://x/1"),
        kept("f", "val", far ^ 2**60, "z", kept=False),
        kept("g", "train", 0b0000),  # as a, which stands for it
        kept("i", "test", 0xFF00_FF00, "p", url="http://x/2"),
        kept("h", "train", 0xFF00_FF01, "q", url="http://x/2"),
    ]
    found = leaks(pd.DataFrame(rows), 3)
    columns = ["key", "other_key", "bits", "same_url", "same_caption"]
    assert {frozenset(row[:2]): row[2:] for row in found[columns].itertuples(index=False)} == {
        frozenset("ab"): (3, False, True),
        frozenset("bc"): (2, False, True),
        frozenset("hi"): (1, True, False),
        frozenset("de"): (64, True, False),
    }
    assert len(found) == 4
    assert found["bits"].is_monotonic_increasing
    assert len(leaks(pd.DataFrame(rows[:6]).drop(columns="url"), 1)) == 0
    assert not leaks(pd.DataFrame(rows[:6]).assign(url=""), 3)["same_url"].any()


def test_a_mirror_image_on_another_side_is_a_leak():
    left, right, far = 0xFF, 0xFF << 40, 0x5555 << 20
    rows = [
        kept("a", "train", left, mirrored=right),
        kept("b", "val", right ^ 1, mirrored=left ^ 2),  # 1 and 1 bit from a's mirror image
        kept("c", "test", far, mirrored=far ^ 4),  # its own mirror image, but for a bit
        kept("d", "val", far ^ 8, mirrored=far ^ 12),
    ]
    found = leaks(pd.DataFrame(rows), 2)[["key", "other_key", "bits", "mirrored"]]
    assert found.to_numpy().tolist() == [["a", "b", 1, True], ["c", "d", 1, False]]


def test_leaks_of_a_ledger_without_mirror_images():
    rows = [kept("a", "train", 0), kept("b", "val", 1)]
    found = leaks(pd.DataFrame(rows).drop(columns="phash_mirrored"), 1)
    assert found[["key", "other_key", "bits", "mirrored"]].to_numpy().tolist() == [
        ["a", "b", 1, False]
    ]


def test_equal_hashes_on_two_sides_are_one_leak():
    rows = [kept(f"{side}{i}", side, 5) for side in ("train", "val", "test") for i in range(50)]
    found = leaks(pd.DataFrame(rows), 0)
    assert len(found) == 3
    assert set(found["bits"]) == {0}


def test_a_group_larger_than_a_side_stays_in_train():
    ids = pd.concat([groups(40), pd.Series([f"{number:016x}" for number in [9] * 30])])
    ids = ids.reset_index(drop=True)
    for seed in range(20):
        sides = assign(ids, SplitConfig(val=0.05, test=0.05, minimum=5, seed=seed))
        assert set(sides[ids == f"{9:016x}"]) == {"train"}
        assert (sides == "val").sum() == 5


@pytest.mark.parametrize(
    ("sizes", "held_out"),
    [
        ([50] * 40, 0),
        ([2] * 8, 0),
        ([30] * 3, 0),
        ([950] + [1] * 50, 50),
        ([50] * 9 + [1] * 20, 20),
    ],
)
def test_where_most_groups_are_large_train_keeps_them(sizes, held_out):
    ids = pd.Series(np.repeat([f"{n:016x}" for n in range(len(sizes))], sizes))
    for seed in range(20):
        sides = assign(ids, SplitConfig(seed=seed))
        assert set(sides[ids.map(ids.value_counts()) > 1]) == {"train"}
        assert (sides == "val").sum() == (sides == "test").sum() == held_out // 2
