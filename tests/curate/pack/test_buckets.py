"""Buckets follow from the set of keys, hold no more than they may, and move few when keys are added."""

import hashlib
from collections import Counter

import numpy as np
import pytest

from curate.pack.buckets import buckets, key_hashes
from curate.pack.plan import plan

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


@pytest.mark.parametrize("most", LIMITS)
def test_each_hash_is_where_the_recursion_puts_it(most):
    hashes = drawn(3000)
    hashes[:200] &= np.uint64(0xFFF000)  # many that part late
    hashes = np.unique(hashes)
    expected = oracle(hashes.tolist(), most)
    assert dict(zip(hashes.tolist(), buckets(hashes, most).tolist(), strict=True)) == expected


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
    assert plan({"train": []}, 10) == []


def test_hashes_of_keys_are_the_beginning_of_blake2b():
    """Shards of the same data keep their bytes only while these stay what they are."""
    keys = ["a", "val2014-000000000009", "ü"]
    expected = [int(hashlib.blake2b(key.encode()).hexdigest()[:16], 16) for key in keys]
    assert key_hashes(keys).tolist() == expected
    assert key_hashes(["a"]).tolist() == [0x333FCB4EE1AA7C11]


def test_shards_are_named_by_their_buckets():
    keys = [f"k{i}" for i in range(60)]
    plans = plan({"train": keys, "val": keys[:3]}, 10)
    assert [planned.path for planned in plans if planned.split == "val"] == [
        "shards/val/000000.tar"
    ]
    where = {int(planned.path[-10:-4]): planned.keys for planned in plans[:-1]}
    numbers = buckets(key_hashes(keys), 10).tolist()
    hashes = dict(zip(keys, key_hashes(keys).tolist(), strict=True))
    for number, held in where.items():
        own = [key for key, n in zip(keys, numbers, strict=True) if n == number]
        assert held == sorted(own, key=hashes.__getitem__)
    assert sorted(where) == sorted(set(numbers))
    assert plan({"train": keys[::-1], "val": keys[:3]}, 10) == plans


def test_keys_of_equal_hashes_are_in_the_order_of_the_alphabet(monkeypatch):
    monkeypatch.setattr("curate.pack.plan.key_hashes", lambda keys: np.zeros(len(keys), np.uint64))
    for keys in (["b", "c", "a"], ["c", "a", "b"]):
        assert [planned.keys for planned in plan({"train": keys}, 2)] == [["a", "b", "c"]]
