"""Near pairs in runs of equal bands: all of them up to a length, and of longer ones what the first have."""

import numpy as np
import pytest

from curate.decide import runs
from curate.decide.neighbours import BandTable, band_tables, joined
from curate.decide.runs import Runs
from curate.run.hashing import GOLDEN

ALL = np.uint64(2**64 - 1)


def found(hashes, table, distance):
    search = Runs(hashes, table, distance)
    one, other = joined(search.pairs())
    low, high = np.minimum(one, other).tolist(), np.maximum(one, other).tolist()
    return sorted(zip(low, high, strict=True)), search.crowded


def near(hashes, mask, distance):
    differing = hashes[:, None] ^ hashes
    counts = (differing & mask == 0) & (np.bitwise_count(differing) <= distance)
    return [(int(a), int(b)) for a, b in zip(*np.nonzero(np.triu(counts, 1)), strict=True)]


def gathered(count, seed=0):
    """Hashes of which many agree in the upper half, and some in all bits."""
    rng = np.random.default_rng(seed)
    upper = rng.integers(0, 3, count).astype(np.uint64) << np.uint64(40)
    return upper | rng.integers(0, 2**9, count, dtype=np.uint64)


@pytest.fixture
def short(monkeypatch):
    monkeypatch.setattr(runs, "LONGEST", 12)
    monkeypatch.setattr(runs, "COMPARED", 4)


@pytest.mark.parametrize("distance", [0, 1, 3, 5])
def test_of_what_is_crowded_no_pair_is_wrong_or_twice(distance, short):
    hashes = np.unique(gathered(400))
    for table in band_tables(10**6, distance):
        hashes = np.random.default_rng(1).permutation(hashes)
        pairs, crowded = found(hashes, table, distance)
        expected = near(hashes, table.mask, distance)
        expected = [
            (a, b)
            for a, b in expected
            if all((hashes[a] ^ hashes[b]) & band for band in table.earlier)
        ]
        assert len(set(pairs)) == len(pairs)
        assert set(pairs) <= set(expected)
        assert pairs == expected or crowded


def test_a_long_run_is_divided_and_loses_no_pair(short):
    """Of hashes that agree in the table's bands, and differ in the bits that finer tables look at."""
    rng = np.random.default_rng(2)
    mask, distance = np.uint64(0xFFFFFF << 40), 2
    hashes = rng.integers(0, 2**40, 300, dtype=np.uint64)
    for place in range(100):
        for bit in rng.choice(40, distance, replace=False):
            hashes[200 + place] = hashes[place] ^ np.uint64(1 << int(bit))
    hashes |= np.uint64(0xABCDEF << 40)
    order = rng.permutation(300)
    pairs, crowded = found(hashes[order], BandTable(mask, ()), distance)
    assert len(hashes) > runs.LONGEST
    assert crowded == []
    assert pairs == near(hashes[order], mask, distance)
    assert len(pairs) >= 100


def test_of_equal_hashes_the_first_are_compared_with_all(short):
    hashes = np.array([7] * 13 + [9] * 12, np.uint64)
    pairs, crowded = found(hashes, BandTable(ALL, ()), 0)
    of_long = [(a, b) for a in range(4) for b in range(a + 1, 13)]
    assert pairs == of_long + near(hashes, ALL, 0)[-66:]
    assert crowded == [13]
    rng = np.random.default_rng(0)
    order = rng.permutation(25)
    sevens = np.sort(order.argsort()[:13])
    pairs, crowded = found(hashes[order], BandTable(ALL, ()), 0)
    expected = {(sevens[a], sevens[b]) for a, b in of_long}
    assert {(a, b) for a, b in pairs if a in sevens} == expected
    assert crowded == [13]


def test_values_that_are_equal_in_short_are_no_run(short):
    """Two values, each as often as a run may be long, whose packed numbers are equal but for the bits of the position."""
    inverse = pow(GOLDEN, -1, 2**64)
    ones = [(5 << 40) * inverse % 2**64, ((5 << 40) + 1) * inverse % 2**64]
    hashes = np.array(ones * 12, np.uint64)
    assert len(set((hashes * np.uint64(GOLDEN) >> np.uint64(5)).tolist())) == 1
    pairs, crowded = found(hashes, BandTable(ALL, ()), 0)
    assert (pairs, crowded) == (near(hashes, ALL, 0), [])
    pairs, crowded = found(np.repeat(hashes, 2), BandTable(ALL, ()), 0)
    assert crowded == [24, 24]
    assert len(pairs) == 2 * (23 + 22 + 21 + 20)


def test_a_table_without_bands_compares_all(short):
    hashes = gathered(60)
    assert found(hashes, BandTable(np.uint64(0), ()), 4) == (near(hashes, np.uint64(0), 4), [])
