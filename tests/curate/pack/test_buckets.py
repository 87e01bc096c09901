"""Buckets follow from the set of keys, hold no more than they may, and move few when keys are added."""

import hashlib
from collections import Counter

import numpy as np
import pytest

from curate.pack.buckets import divide, key_hashes, mirrored
from curate.pack.plan import Planned, Side
from tests.curate.pack.oracle import buckets as in_memory

LIMITS = [1, 2, 7, 50, 1000, 5000]


def oracle(hashes, most, number=0, depth=0):
    """Hash => bucket, by recursion over one bucket at a time."""
    if len(hashes) <= most or depth == 64:
        return dict.fromkeys(hashes, number)
    halves = [[h for h in hashes if h >> depth & 1 == bit] for bit in (0, 1)]
    low = oracle(halves[0], most, number, depth + 1)
    return low | oracle(halves[1], most, number + 2**depth, depth + 1)


def drawn(count, seed=0):
    return np.random.default_rng(seed).integers(0, 2**64, count, np.uint64)


def side(hashes, most):
    numbers = mirrored(hashes)
    asked = []

    def counted(depth, above, heads):
        assert above < depth <= 64
        own = numbers if not above else numbers[np.isin(numbers >> np.uint64(64 - above), heads)]
        asked.append(len(own))
        return np.unique(own >> np.uint64(64 - depth), return_counts=True)

    starts, samples = divide(len(hashes), most, counted)
    assert len(asked) <= 64
    return Side(starts, mirrored(starts), samples)


def buckets(hashes, most):
    """The name of each hash's bucket."""
    found = side(hashes, most)
    places = Planned({"train": found}).places(np.full(len(hashes), "train"), mirrored(hashes))
    names = found.names[places] if len(hashes) else np.array([], np.uint64)
    assert dict(zip(found.names.tolist(), found.samples.tolist(), strict=True)) == Counter(
        names.tolist()
    )
    return names


def test_bits_are_mirrored():
    for number in [0, 1, 2**63, 0x123456789ABCDEF0, 2**64 - 1]:
        expected = int(f"{number:064b}"[::-1], 2)
        assert mirrored(np.array([number], np.uint64)).tolist() == [expected]


@pytest.mark.parametrize("most", LIMITS)
def test_each_hash_is_where_the_recursion_puts_it(most):
    hashes = drawn(3000)
    hashes[:200] &= np.uint64(0xFFF000)  # many that part late
    hashes = np.unique(hashes)
    expected = oracle(hashes.tolist(), most)
    found = buckets(hashes, most)
    assert dict(zip(hashes.tolist(), found.tolist(), strict=True)) == expected
    np.testing.assert_array_equal(found, in_memory(hashes, most))


@pytest.mark.parametrize("most", LIMITS)
def test_no_bucket_holds_too_many_and_the_order_of_the_input_decides_nothing(most):
    hashes = np.unique(drawn(3000))
    numbers = buckets(hashes, most)
    assert max(Counter(numbers.tolist()).values()) <= most
    shuffled = np.random.default_rng(1).permutation(len(hashes))
    np.testing.assert_array_equal(buckets(hashes[shuffled], most), numbers[shuffled])


@pytest.mark.parametrize("added", [1, 50, 300])
def test_added_hashes_move_only_those_of_a_bucket_that_becomes_too_large(added):
    hashes = drawn(6000)
    before = buckets(hashes, 100)
    after = buckets(np.append(hashes, drawn(added, seed=1)), 100)
    moved = before != after[: len(hashes)]
    held = Counter(before.tolist())
    joined = Counter(_bucket_among(h, held) for h in drawn(added, seed=1).tolist())
    full = {number for number, count in joined.items() if held[number] + count > 100}
    assert set(before[moved].tolist()) <= full
    assert bool(full) == (added > 1)  # one more hash fills no bucket here, and so moves nobody
    stayed = np.isin(before, list(full)) & ~moved
    assert stayed.sum() >= 0.3 * moved.sum()  # a divided bucket keeps about half of its own


def _bucket_among(value, numbers):
    """The bucket that a hash falls into: the longest of its endings that is a number of a bucket."""
    return next(low for d in range(64, -1, -1) if (low := value % 2**d) in numbers)


def test_hashes_that_are_equal_stay_together():
    same = np.full(9, 12345, np.uint64)
    assert set(buckets(same, 2).tolist()) == {12345}  # all bits are used, and it ends
    mixed = np.append(same, np.uint64(12345 + 2**63))
    numbers = buckets(mixed, 2).tolist()
    assert set(numbers[:9]) == {12345}
    assert numbers[9] == 12345 + 2**63


def test_no_hashes_no_buckets():
    assert buckets(np.array([], np.uint64), 10).tolist() == []
    assert key_hashes([]).tolist() == []


def test_hashes_of_keys_are_the_beginning_of_blake2b():
    """Shards of the same data keep their bytes only while these stay what they are."""
    keys = ["a", "val2014-000000000009", "ü"]
    expected = [int(hashlib.blake2b(key.encode()).hexdigest()[:16], 16) for key in keys]
    assert key_hashes(keys).tolist() == expected
    assert key_hashes(["a"]).tolist() == [0x333FCB4EE1AA7C11]


def test_places_and_paths_agree():
    starts = {"train": [0, 10, 20], "val": [5]}
    names = {"train": [7, 0, 1234567], "val": [3]}
    as_numbers = lambda values: np.array(values, np.uint64)  # noqa: E731
    planned = Planned(
        {
            split: Side(
                as_numbers(starts[split]),
                as_numbers(names[split]),
                np.arange(1, 1 + len(starts[split])),
            )
            for split in starts
        },
        "2-of-3-",
    )
    plans = planned.plans()
    assert [(each.path, each.samples, each.place) for each in plans] == [
        ("shards/train/2-of-3-000000.tar", 2, 1),
        ("shards/train/2-of-3-000007.tar", 1, 0),
        ("shards/train/2-of-3-1234567.tar", 3, 2),
        ("shards/val/2-of-3-000003.tar", 1, 3),
    ]
    assert planned.paths([each.place for each in plans]) == [each.path for each in plans]
    splits = np.array(["val", "train", "train", "train", "val"])
    places = planned.places(splits, as_numbers([5, 0, 19, 2**64 - 1, 99]))
    assert places.tolist() == [3, 0, 1, 2, 3]
