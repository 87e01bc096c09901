"""Semantic copies in clusters: all pairs that share a cluster, each once, the same ones however tasks are cut."""

import numpy as np
import pyarrow as pa
import pytest

from curate.decide import edges, keeping, kmeans, neighbours, semantic
from curate.decide.vector_files import VectorFiles
from curate.run.database import Limits, connect
from curate.run.engine.inprocess import InProcess
from tests.curate.decide import searched

D = 16


def unit(vectors):
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def planted(count, pairs, seed=0, spread=0.2):
    """Unit vectors in loose clouds, the last ``pairs`` of them near the first; one in fifty is zero."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(count // 50, D))
    vectors = unit(centres[rng.integers(0, len(centres), count)] + rng.normal(size=(count, D)))
    vectors[-pairs:] = unit(vectors[:pairs] + rng.normal(size=(pairs, D)) * spread / D**0.5)
    vectors[rng.permutation(count - pairs)[: count // 50]] = 0
    return vectors


def searching(folder, vectors, cosine, joined, order=None):
    """Pairs of numbers, and the files; ``order`` (N,) puts the vectors in other places under the same numbers."""
    order = np.arange(len(vectors)) if order is None else order
    folder.mkdir()
    np.ascontiguousarray(vectors[order]).tofile(folder / "vectors.bin")
    order.astype(np.int64).tofile(folder / "numbers.bin")
    files = VectorFiles(folder, *vectors.shape)
    hashes = np.random.default_rng(5).permutation(len(vectors)).astype(np.uint64)
    with connect(Limits(folder / "scratch", 200_000_000, 2)) as connection:
        searched.add(connection, "images", pa.table({"image": order, "number": hashes[order]}))
        there = np.flatnonzero(vectors[order].any(axis=1))
        places = {"place": there, "image": order[there]}
        searched.add(connection, "copies_place", pa.table(places))
        query = semantic.search(connection, files, cosine, InProcess(), joined)
        return connection.sql(query).fetchall(), files


def near(vectors, cosine):
    exact = vectors.astype(np.float64)
    return np.triu(np.round(exact @ exact.T, 6) >= cosine, 1)


def labels(count, pairs):
    one, other = np.array(pairs).T
    return neighbours.components(count, [(one, other)])


def nearest_two(files):
    """By products of whole numbers, one vector after another; -1 for zeros."""
    centroids = np.load(files.folder / "centroids.npy").astype(np.int64)
    vectors = kmeans.rounded(files.vectors).astype(np.int64)
    two = np.argsort(-(vectors @ centroids.T), axis=1, kind="stable")[:, :2]
    return np.where(files.vectors.any(axis=1)[:, None], two, [[-1, -2]])


def test_all_pairs_that_share_a_cluster_each_once(tmp_path, monkeypatch):
    monkeypatch.setattr(semantic, "ALONE", 100)
    monkeypatch.setattr(semantic, "_ASSIGNED", 170)
    vectors = planted(900, 200)
    found, files = searching(tmp_path / "all", vectors, 0.9, joined=False)
    two = nearest_two(files)
    assert len(np.unique(two)) > 20
    shared = (two[:, None, :, None] == two[:, None]).any(axis=(2, 3))
    expected = near(vectors, 0.9) & shared
    assert sorted(found) == [(int(a), int(b)) for a, b in zip(*np.nonzero(expected), strict=True)]
    assert len(found) > 150
    both = two[:, None, ::-1] == two
    assert (expected & both.all(axis=2)).any()


def test_a_crowd_has_few_pairs_and_the_same_outcome(tmp_path, monkeypatch):
    """Hundreds of pictures of one product, all near each other: the first is kept."""
    monkeypatch.setattr(semantic, "ALONE", 100)
    monkeypatch.setattr(semantic, "NEIGHBOURS", 5)
    rng = np.random.default_rng(3)
    product = unit(rng.normal(size=(1, D)))
    crowd = unit(product + rng.normal(size=(600, D)) * 0.02 / D**0.5)
    vectors = unit(rng.normal(size=(900, D)))
    places = np.sort(rng.permutation(900)[:600])
    vectors[places] = crowd
    found, _ = searching(tmp_path / "crowd", vectors, 0.97, joined=False)
    assert near(vectors, 0.97).sum() > 100_000
    assert len(found) < 2 * 5 * 900
    with connect(Limits(tmp_path / "scratch", 200_000_000, 2)) as connection:
        searched.add(
            connection,
            "found",
            pa.table(dict(zip(("one", "other"), np.array(found).T, strict=True))),
        )
        keeping.write_kept(
            connection, "SELECT * FROM found", len(vectors), tmp_path / "kept.parquet"
        )
        kept = dict(
            connection.sql(
                "SELECT other, one FROM " + f"({edges.of_files([tmp_path / 'kept.parquet'])})"
            ).fetchall()
        )
    assert kept == {int(place): int(places[0]) for place in places[1:]}


@pytest.mark.parametrize("held", [1 << 28, 0])
def test_what_is_joined_has_the_same_components(held, tmp_path, monkeypatch):
    monkeypatch.setattr(semantic, "ALONE", 100)
    monkeypatch.setattr(semantic, "_HELD", held)
    vectors = planted(900, 200)
    found, _ = searching(tmp_path / "all", vectors, 0.9, joined=False)
    joined, _ = searching(tmp_path / "joined", vectors, 0.9, joined=True)
    expected = labels(900, found)
    assert (labels(900, joined) == expected).all()
    assert len(set(expected.tolist())) < 800


def test_neither_order_nor_tasks_nor_threads_decide(tmp_path, monkeypatch):
    import torch

    monkeypatch.setattr(semantic, "ALONE", 100)
    vectors = planted(700, 150)
    found, files = searching(tmp_path / "first", vectors, 0.9, joined=False)
    expected = sorted(found)
    order = np.random.default_rng(0).permutation(700)
    monkeypatch.setattr(semantic, "_ASSIGNED", 33)
    monkeypatch.setattr(semantic, "_CLUSTERS", 5)
    monkeypatch.setattr(kmeans, "_PRODUCTS", 100)
    threads = torch.get_num_threads()
    torch.set_num_threads(3 - threads if threads < 3 else 1)
    again, moved = searching(tmp_path / "again", vectors, 0.9, joined=False, order=order)
    torch.set_num_threads(threads)
    assert sorted((min(a, b), max(a, b)) for a, b in again) == expected
    centroids = (folder / "centroids.npy" for folder in (files.folder, moved.folder))
    assert len({path.read_bytes() for path in centroids}) == 1


def test_one_cluster_is_exact(tmp_path):
    vectors = planted(600, 150)
    matrix = near(vectors, 0.9)
    joined, _ = searching(tmp_path / "joined", vectors, 0.9, joined=True)
    pairs = [(int(a), int(b)) for a, b in zip(*np.nonzero(matrix), strict=True)]
    assert (labels(600, joined) == labels(600, pairs)).all()
    found, _ = searching(tmp_path / "kept", vectors, 0.9, joined=False)
    outcomes = []
    for name, links in (("kept", found), ("all", pairs)):
        path = tmp_path / f"{name}.parquet"
        with connect(Limits(tmp_path / "scratch", 100_000_000, 1)) as connection:
            one, other = np.array(links).T
            searched.add(connection, "links", pa.table({"one": one, "other": other}))
            keeping.write_kept(connection, "SELECT one, other FROM links", 600, path)
            outcomes.append(sorted(connection.sql(edges.of_files([path])).fetchall()))
    assert outcomes[0] == outcomes[1]
    assert len(outcomes[0]) > 100


def test_planted_pairs_are_found(tmp_path, monkeypatch):
    """Of pairs with a cosine of 0.96 and more, in some hundred clusters, all but one in a hundred."""
    monkeypatch.setattr(semantic, "ALONE", 100)
    vectors = planted(12_000, 2_000)
    found, _ = searching(tmp_path / "found", vectors, 0.96, joined=False)
    exact = vectors.astype(np.float64)
    cosines = (exact[:2_000] * exact[-2_000:]).sum(axis=1).round(6)
    pairs = {(n, 10_000 + n) for n in np.flatnonzero(cosines >= 0.96).tolist()}
    assert len(pairs) > 1_500
    assert len(pairs & set(found)) >= 0.99 * len(pairs)


@pytest.mark.parametrize("vectors", [np.zeros((0, 0)), np.zeros((300, 4)), np.zeros((300, 0))])
def test_without_embeddings_nothing_is_near(vectors, tmp_path, monkeypatch):
    monkeypatch.setattr(semantic, "ALONE", 100)
    assert searching(tmp_path / "none", vectors.astype(np.float32), 0.9, joined=False)[0] == []


def test_few_embeddings_for_many_clusters(tmp_path, monkeypatch):
    monkeypatch.setattr(semantic, "ALONE", 100)
    vectors = np.zeros((400, 4), np.float32)
    vectors[[5, 9, 300], 0] = 1
    assert sorted(searching(tmp_path / "few", vectors, 0.9, joined=False)[0]) == [
        (5, 9),
        (5, 300),
        (9, 300),
    ]


@pytest.mark.parametrize("nearest", [1, 2])
def test_the_nearest_centroids_are_the_first_of_equal_ones(nearest, monkeypatch):
    rng = np.random.default_rng(0)
    vectors = rng.integers(-3, 4, (500, 3)).astype(np.int8)
    centroids = rng.integers(-3, 4, (40, 3)).astype(np.int8)
    products = vectors.astype(np.int64) @ centroids.T.astype(np.int64)
    expected = np.argsort(-products, axis=1, kind="stable")[:, :nearest]
    monkeypatch.setattr(kmeans, "_PRODUCTS", 1000)
    assert (kmeans.assigned(vectors, centroids, nearest) == expected).all()


def test_training_moves_centroids_to_the_means():
    rng = np.random.default_rng(0)
    centres = unit(rng.normal(size=(8, 64)))
    label = rng.integers(0, 8, 2_000)
    label[:8] = np.arange(8)
    sample = kmeans.rounded(unit(centres[label] + rng.normal(size=(2_000, 64)) * 0.05))
    found = kmeans.trained(sample, 8).astype(np.float64)
    assert ((unit(found) * centres).sum(axis=1) > 0.99).all()
    assert (np.abs(np.linalg.norm(found, axis=1) - kmeans.STEP) < 8).all()
