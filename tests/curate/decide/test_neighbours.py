"""Near pairs against comparing each with each; components against a walk."""

import numpy as np
import pytest
import torch

from curate.decide import neighbours as near
from curate.decide.neighbours import components, cosine_pairs, hamming_pairs, joined
from tests.curate.decide.naive_copies import greedily


def listed(pairs):
    first, second = joined(pairs)
    return sorted(zip(np.minimum(first, second), np.maximum(first, second), strict=True))


def brute_force(hashes, distance):
    differing = np.bitwise_count(hashes[:, None] ^ hashes[None])
    return sorted(zip(*np.nonzero(np.triu(differing <= distance, 1)), strict=True))


def clustered(count, seed=0):
    """Hashes of which each has some neighbours, a few bits away."""
    rng = np.random.default_rng(seed)
    centres = rng.integers(0, 2**64, count // 4, dtype=np.uint64)
    flips = np.zeros(count, np.uint64)
    for _ in range(7):
        flips ^= np.uint64(1) << rng.integers(0, 64, count, dtype=np.uint64)
    flips[rng.random(count) < 0.3] &= np.uint64(0xFF)
    return rng.permutation(np.unique(np.repeat(centres, 4)[:count] ^ flips))


@pytest.mark.parametrize("distance", [0, 1, 2, 4, 7, 8, 16])
@pytest.mark.parametrize("count", [0, 1, 40, 1500])
def test_hashes_as_by_brute_force_each_pair_once(distance, count):
    hashes = clustered(count)
    found = listed(hamming_pairs(hashes, distance))
    assert found == brute_force(hashes, distance)
    if count == 1500 and distance >= 7:
        assert len(found) > 100


@pytest.mark.parametrize("bits", [2**64 - 1, 0x3F0F0000FFFF, 7, 0])
def test_bands_of_some_bits_find_what_agrees_in_the_others(bits):
    base, few = np.uint64(0x123456789ABCDEF0), np.uint64(bits)
    rng = np.random.default_rng(0)
    hashes = base ^ (few & rng.integers(0, 2**64, 300, dtype=np.uint64))
    hashes[150:] = hashes[:150] ^ (few & np.uint64(0x800010002))
    found = []
    for table in near.band_tables(300, 3, few):
        for one, other in near.agreeing_pairs(hashes & table.mask):
            counts = table.are_near(hashes[one] ^ hashes[other], 3)
            found.append((one[counts], other[counts]))
    assert listed(found) == brute_force(hashes, 3)


@pytest.mark.parametrize("agreeing", [0, 1, 2, 3])
def test_any_number_of_agreeing_bands_finds_the_same(agreeing, monkeypatch):
    monkeypatch.setattr("curate.decide.neighbours._agreeing", lambda *count: agreeing)
    hashes = clustered(600)
    assert listed(hamming_pairs(hashes, 5)) == brute_force(hashes, 5)


def test_a_hundred_thousand_hashes_lose_no_planted_pair():
    rng = np.random.default_rng(1)
    hashes = np.unique(rng.integers(0, 2**64, 100_000, dtype=np.uint64))
    bits = np.array([rng.choice(64, 4, replace=False) for _ in range(500)])
    planted = hashes[:500] ^ np.bitwise_or.reduce(np.uint64(1) << bits.astype(np.uint64), axis=1)
    found = listed(hamming_pairs(np.concatenate([hashes, planted]), 4))
    assert {(i, len(hashes) + i) for i in range(500)} <= set(found)


@pytest.mark.parametrize("block", [7, 64, 4096])
def test_vectors_as_by_brute_force(block):
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(150, 5)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors[3] = vectors[140]
    vectors[10] = 0
    expected = np.triu(vectors.astype(np.float64) @ vectors.T >= 0.9, 1)
    found = listed(cosine_pairs(vectors, 0.9, block))
    assert found == sorted(zip(*np.nonzero(expected), strict=True))
    assert listed(cosine_pairs(vectors, 1.0, block)) == [(3, 140)]


def test_what_the_environment_chose_for_products_does_not_count():
    """As TF32 or bf16, whose errors are larger than what is looked at again."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        list(cosine_pairs(np.eye(3, dtype=np.float32), 0.9))
        assert torch.get_float32_matmul_precision() == "highest"
    finally:
        torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize("block", [7, 64, 4096])
def test_which_vectors_stay(block, monkeypatch):
    monkeypatch.setattr(near, "_SLICE", 5)
    vectors = np.random.default_rng(0).normal(size=(300, 3)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    expected = greedily(vectors @ vectors.T >= 0.8)
    assert (near.stays_by_cosine(vectors, 0.8, block) == expected).all()
    assert 10 < len(set(expected.tolist())) < 100


def test_many_alike_vectors_are_decided_in_little_memory():
    import tracemalloc

    vectors = np.zeros((3_000, 4), np.float32)
    vectors[:, 0] = 1
    tracemalloc.start()
    assert (near.stays_by_cosine(vectors, 0.9) == 0).all()
    assert tracemalloc.get_traced_memory()[1] < 45_000_000  # 4.5 million pairs take 72 MB
    tracemalloc.stop()


def test_components_of_a_random_graph():
    rng = np.random.default_rng(0)
    edges = rng.integers(0, 500, (300, 2))
    neighbours = {node: set() for node in range(500)}
    for one, other in edges:
        neighbours[one].add(other)
        neighbours[other].add(one)
    expected = np.full(500, -1)
    for node in range(500):
        stack = [node] if expected[node] < 0 else []
        while stack:
            at = stack.pop()
            expected[at] = node
            stack += [n for n in neighbours[at] if expected[n] < 0]
    blocks = np.array_split(edges, 7)
    assert (components(500, ((b[:, 0], b[:, 1]) for b in blocks)) == expected).all()


def test_a_long_chain_is_one_component():
    chain = np.random.default_rng(0).permutation(100_000)
    assert (components(100_000, [(chain[:-1], chain[1:])]) == 0).all()
    assert (components(3, []) == [0, 1, 2]).all()


def test_neither_order_nor_blocks_decide_which_vectors_are_near():
    """Of pairs whose cosines differ from the bound by less than single precision can tell."""
    rng = np.random.default_rng(0)
    ones = rng.normal(size=(200, 512))
    ones /= np.linalg.norm(ones, axis=1, keepdims=True)
    across = rng.normal(size=ones.shape)
    across -= (across * ones).sum(axis=1, keepdims=True) * ones
    across /= np.linalg.norm(across, axis=1, keepdims=True)
    cosines = 0.96 + rng.uniform(-3e-6, 3e-6, size=(200, 1))
    others = cosines * ones + np.sqrt(1 - cosines**2) * across
    vectors = np.concatenate([ones, others]).astype(np.float32)
    exact = np.round(vectors.astype(np.float64) @ vectors.T.astype(np.float64), 6)
    expected = sorted(zip(*np.nonzero(np.triu(exact >= 0.96, 1)), strict=True))
    assert 50 < len(expected) < 150
    for block in (7, 64, 4096):
        order = rng.permutation(len(vectors))
        first, second = joined(cosine_pairs(vectors[order], 0.96, block))
        one, other = order[first], order[second]
        assert listed([(one, other)]) == expected


@pytest.mark.parametrize("least", [0, 3_100_000_000, 2**62])
def test_pairs_once_however_large_the_positions(least):
    one, other = least + np.random.default_rng(0).integers(0, 30, (2, 500))
    low, high = near.each_once(one, other)
    expected = sorted(
        {(min(pair), max(pair)) for pair in zip(one.tolist(), other.tolist(), strict=True)}
    )
    assert list(zip(low.tolist(), high.tolist(), strict=True)) == expected
    assert [len(of) for of in near.each_once(one[:0], other[:0])] == [0, 0]
