"""Near looks on the disk against comparing each with each; crowds of one hash with few comparisons."""

import duckdb
import numpy as np
import pytest

from curate.decide import near, runs
from curate.decide.evidence import COPIES, GROUPS, Evidence, is_plain
from curate.decide.look_files import LookFiles
from curate.measures.thumbnail import BYTES
from curate.run.engine.inprocess import InProcess
from tests.curate.decide.test_neighbours import brute_force, clustered

ANY = Evidence(luma=255, chroma=255, shape=99.0)


def written(folder, hashes, thumbnails, numbers=None):
    numbers = np.arange(len(hashes)) if numbers is None else numbers
    return LookFiles.write(folder / "looks", [(numbers, hashes, thumbnails)])


def pairs_of(query):
    with duckdb.connect() as connection:
        return sorted(connection.execute(query).fetchall())


def ramps(count):
    return np.tile(np.arange(BYTES, dtype=np.uint8), (count, 1))


@pytest.mark.parametrize("bucket", [1 << 24, 100])
@pytest.mark.parametrize("distance", [0, 1, 4, 8, 16])
def test_as_by_brute_force_each_pair_once(distance, bucket, tmp_path, monkeypatch):
    monkeypatch.setattr(near, "BUCKET", bucket)
    hashes = clustered(800)
    looks = written(tmp_path, hashes, ramps(len(hashes)), numbers=np.arange(len(hashes)) * 10)
    found = near.search(looks, distance, ANY, InProcess())
    expected = [(10 * int(a), 10 * int(b)) for a, b in brute_force(hashes, distance)]
    assert pairs_of(found.near) == expected
    assert pairs_of(found.led) == []
    assert found.crowds == near.Crowds()


@pytest.mark.parametrize("count", [0, 1])
def test_of_nothing_nothing(count, tmp_path):
    looks = written(tmp_path, np.full(count, 7, np.uint64), ramps(count))
    found = near.search(looks, 4, ANY, InProcess())
    assert (pairs_of(found.near), pairs_of(found.led)) == ([], [])


def test_plain_looks_are_not_searched(tmp_path):
    seen = np.random.default_rng(0).integers(99, 102, (40, BYTES)).astype(np.uint8)
    assert is_plain(seen).all()
    seen[::4] = np.arange(BYTES)
    looks = written(tmp_path, np.zeros(40, np.uint64), seen)
    assert looks.numbers.tolist() == list(range(0, 40, 4))
    assert len(pairs_of(near.search(looks, 4, COPIES, InProcess()).near)) == 45


def test_what_is_not_compared_does_not_depend_on_buckets(tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "LONGEST", 30)
    monkeypatch.setattr(runs, "COMPARED", 5)
    rng = np.random.default_rng(0)
    hashes = rng.permutation(
        np.concatenate([clustered(400), rng.integers(0, 2**5, 400, dtype=np.uint64)])
    )
    found = []
    for place, bucket in enumerate([1 << 24, 200, 50]):
        monkeypatch.setattr(near, "BUCKET", bucket)
        (tmp_path / f"{place}").mkdir()
        looks = written(tmp_path / f"{place}", hashes, ramps(len(hashes)))
        search = near.search(looks, 4, ANY, InProcess())
        found.append((pairs_of(search.near), search.crowds))
    assert found[0] == found[1] == found[2]
    pairs, crowds = found[0]
    assert crowds.runs > 0
    assert crowds.looks > 30 * crowds.runs
    expected = brute_force(hashes, 4)
    assert len(set(pairs)) == len(pairs)
    assert set(pairs) < set(expected)
    elsewhere = {(a, b) for a, b in expected if max(hashes[a], hashes[b]) >= 2**5}
    assert elsewhere <= set(pairs)


def crowd(kinds, copies, seed=0):
    """Hashes and noisy copies of ``kinds`` unlike pictures that all have one hash, shuffled; and the kind of each."""
    rng = np.random.default_rng(seed)
    shapes = rng.integers(40, 216, (kinds, BYTES))
    kind = rng.permutation(np.repeat(np.arange(kinds), copies))
    noisy = shapes[kind] + rng.integers(-2, 3, (len(kind), BYTES))
    return np.full(len(kind), 7, np.uint64), noisy.astype(np.uint8), kind


@pytest.mark.parametrize("limits", [COPIES, GROUPS])
def test_each_of_a_crowd_goes_with_the_first_of_its_kind(limits, tmp_path, monkeypatch):
    hashes, thumbnails, kind = crowd(kinds=5, copies=9)
    looks = written(tmp_path, hashes, thumbnails)
    first = [int(np.flatnonzero(kind == k)[0]) for k in kind]
    monkeypatch.setattr(near, "CROWD", 4)
    found = near.search(looks, 4, limits, InProcess())
    assert pairs_of(found.led) == sorted(
        (one, other) for other, one in enumerate(first) if one != other
    )
    assert pairs_of(found.near) == []
    monkeypatch.setattr(near, "CROWD", 45)
    found = near.search(looks, 4, limits, InProcess())
    assert pairs_of(found.led) == []
    alike = np.triu(kind[:, None] == kind, 1)
    assert pairs_of(found.near) == [
        (int(a), int(b)) for a, b in zip(*np.nonzero(alike), strict=True)
    ]


def test_the_comparisons_of_a_crowd_grow_with_its_size(tmp_path, monkeypatch):
    compared = []
    real = near.alike
    monkeypatch.setattr(near, "alike", lambda one, *a: compared.append(len(one)) or real(one, *a))
    for copies in (1000, 2000):
        compared.clear()
        hashes, thumbnails, _ = crowd(kinds=3, copies=copies)
        (tmp_path / f"{copies}").mkdir()
        looks = written(tmp_path / f"{copies}", hashes, thumbnails)
        found = near.search(looks, 4, COPIES, InProcess())
        assert len(pairs_of(found.led)) == 3 * copies - 3
        assert sum(compared) < 20 * len(hashes)
