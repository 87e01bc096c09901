"""A crowd of pictures with one hash is compared with few of its own, and with the same outcome."""

import numpy as np
import pytest

from curate.decide import looks
from curate.decide.evidence import COPIES, GROUPS
from curate.decide.looks import Looks
from curate.measures.thumbnail import BYTES


def crowd(kinds: int, copies: int, seed: int = 0) -> tuple[Looks, np.ndarray]:
    """Noisy copies of ``kinds`` unlike pictures that all have one hash, shuffled; and the kind of each."""
    rng = np.random.default_rng(seed)
    shapes = rng.integers(40, 216, (kinds, BYTES))
    kind = rng.permutation(np.repeat(np.arange(kinds), copies))
    noisy = shapes[kind] + rng.integers(-2, 3, (len(kind), BYTES))
    return Looks(np.full(len(kind), 7, np.uint64), noisy.astype(np.uint8)), kind


def groups(found: Looks, limits) -> list[frozenset[int]]:
    name = np.arange(len(found.hashes))
    for first, second in found.near_pairs(4, limits):
        for one, other in zip(first.tolist(), second.tolist(), strict=True):
            low, high = sorted((name[one], name[other]))
            name[name == high] = low
    return sorted({frozenset(np.flatnonzero(name == n).tolist()) for n in name}, key=min)


@pytest.mark.parametrize("limits", [COPIES, GROUPS])
def test_a_crowd_ends_as_pairwise_comparison_does(limits, monkeypatch):
    found, kind = crowd(kinds=5, copies=9)
    expected = groups(found, limits), found.stays(4, limits).tolist()
    monkeypatch.setattr(looks, "CROWD", 4)
    assert (groups(found, limits), found.stays(4, limits).tolist()) == expected
    first = {int(k): int(np.flatnonzero(kind == k)[0]) for k in range(5)}
    assert expected[1] == [first[int(k)] for k in kind]


def test_the_comparisons_of_a_crowd_grow_with_its_size(monkeypatch):
    compared = []
    real = looks.alike
    monkeypatch.setattr(looks, "alike", lambda one, *a: compared.append(len(one)) or real(one, *a))
    for copies in (1000, 2000):
        compared.clear()
        found, _ = crowd(kinds=3, copies=copies)
        assert len(set(found.stays(4, COPIES).tolist())) == 3
        assert sum(compared) < 20 * len(found.hashes)
