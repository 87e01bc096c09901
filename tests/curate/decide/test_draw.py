"""Which pairs are shuffled, against Python's own integers and sorting."""

import hashlib
import random
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest

from curate.decide.draw import drawn, drawn_of, pair_numbers, partners

GOLDEN = 0x9E3779B97F4A7C15


def splitmix(state):
    """SplitMix64's output for a state, in integers without bounds."""
    state = (state ^ state >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    state = (state ^ state >> 27) * 0x94D049BB133111EB % 2**64
    return state ^ state >> 31


def number_of(pair):
    key, index = pair
    own = int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "little")
    return splitmix((own + (index + 1) * GOLDEN) % 2**64)


def rank(pair, stream):
    return splitmix((number_of(pair) + (stream + 1) * GOLDEN) % 2**64)


def oracle_drawn(pairs, count, stream):
    return sorted(pairs, key=lambda pair: rank(pair, stream))[:count]


def oracle_partners(pairs, stream):
    circle = sorted(pairs, key=lambda pair: rank(pair, stream))
    return {pair: circle[(place + 1) % len(circle)] for place, pair in enumerate(circle)}


def random_pairs(seed):
    draw = random.Random(seed)
    images = [f"image-{draw.randrange(10**9)}" for _ in range(draw.randrange(1, 200))]
    pairs = {(key, index) for key in images for index in range(draw.randrange(1, 5))}
    return draw.sample(sorted(pairs), draw.randrange(1, len(pairs) + 1))


def numbers_of(pairs):
    keys, indices = zip(*pairs, strict=True)
    return pair_numbers(keys, np.array(indices))


@pytest.mark.parametrize("seed", range(20))
def test_as_the_oracle(seed):
    pairs = random_pairs(seed)
    numbers = numbers_of(pairs)
    assert numbers.tolist() == [number_of(pair) for pair in pairs]
    for count in (0, 1, len(pairs) // 2, len(pairs) + 5):
        found = [pairs[place] for place in drawn(numbers, count, seed)]
        assert found == oracle_drawn(pairs, count, seed)
    given = {pair: pairs[place] for pair, place in zip(pairs, partners(numbers, seed), strict=True)}
    assert given == oracle_partners(pairs, seed)
    if len(pairs) > 1:
        assert all(pair != partner for pair, partner in given.items())


def test_order_decides_nothing_and_pairs_that_are_added_replace_few():
    pairs = [(f"k{number}", 0) for number in range(3_000)]
    first = {pairs[place] for place in drawn(numbers_of(pairs), 100, 0)}
    assert first == {pairs[::-1][place] for place in drawn(numbers_of(pairs[::-1]), 100, 0)}
    more = [*pairs, *((f"new{number}", 0) for number in range(150))]
    after = {more[place] for place in drawn(numbers_of(more), 100, 0)}
    assert len(first - after) == len(after - set(pairs)) < 20


def test_the_draw_is_uniform_and_streams_are_independent():
    """Each partner is as likely as another: a chi-square of less than 90 degrees of freedom."""
    numbers = numbers_of([(f"k{number}", number % 3) for number in range(10)])
    shuffles = np.stack([partners(numbers, stream) for stream in range(9_000)])
    counts = np.stack([np.bincount(column, minlength=10) for column in shuffles.T])
    assert (np.diag(counts) == 0).all()
    apart = counts[~np.eye(10, dtype=bool)]
    assert ((apart - 1_000) ** 2 / 1_000).sum() < 90 + 5 * (2 * 90) ** 0.5


@pytest.mark.parametrize("seed", range(6))
def test_rows_in_blocks_are_drawn_as_all_at_once(seed):
    rng = np.random.default_rng(seed)
    numbers = rng.integers(0, 2**63, 500).astype(np.uint64)
    numbers[:20] = numbers[20:40]  # pairs of one key twice
    table = pa.table({"image": np.arange(500) // 2, "row": np.arange(500), "number": numbers})
    for count in (1, 7, 60, 500, 900):
        expected = drawn(numbers, count, seed)
        for cuts in ([], [1, 2, 250], list(range(10, 500, 10))):
            bounds = [0, *cuts, 500]
            blocks = [table.slice(a, b - a) for a, b in pairwise(bounds)]
            rng.shuffle(blocks)
            found = drawn_of(iter(blocks), count, seed)
            assert found["row"].to_pylist() == expected.tolist()
    assert len(drawn_of(iter([]), 5, seed)) == 0
