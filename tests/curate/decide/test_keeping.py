"""Which of near pictures is kept, and which belong together, against walks over matrices."""

import duckdb
import numpy as np
import pyarrow as pa
import pytest

from curate.decide import edges, neighbours
from curate.decide.components import create_components
from curate.decide.keeping import write_kept
from curate.run.database import Limits, blocks, connect
from tests.curate.decide import searched
from tests.curate.decide.naive_copies import greedily


@pytest.fixture(params=[1, 2])
def connection(tmp_path, request):
    with connect(Limits(tmp_path / "scratch", 100_000_000, request.param)) as opened:
        yield opened


def graph(seed, count, links):
    """Links (M,) and (M,) both ways round and some twice, and the matrix (N, N) of them."""
    rng = np.random.default_rng(seed)
    one, other = rng.integers(0, count, (2, links))
    hubs = rng.random(links) < 0.2
    one[hubs] = rng.integers(0, 5, hubs.sum())
    one, other = np.append(one, other[:9]), np.append(other, one[:9])
    matrix = np.zeros((count, count), bool)
    matrix[one, other] = matrix[other, one] = True
    return one, other, matrix & ~np.eye(count, dtype=bool)


def stored(connection, one, other):
    searched.add(connection, "links", pa.table({"one": one, "other": other}))
    return "SELECT one, other FROM links"


@pytest.mark.parametrize("block", [1 << 17, 7])
@pytest.mark.parametrize("seed", range(3))
def test_which_stay(seed, block, connection, tmp_path, monkeypatch):
    monkeypatch.setattr(edges, "_BLOCK", block)
    monkeypatch.setattr(blocks, "__defaults__", (block,))
    one, other, matrix = graph(seed, 300, 260)
    expected = greedily(matrix)
    path = tmp_path / "kept.parquet"
    gone = write_kept(connection, stored(connection, one, other), 300, path)
    found = connection.sql(edges.of_files([path]) + " ORDER BY other").fetchnumpy()
    stays = np.arange(300)
    stays[found["other"]] = found["one"]
    assert stays.tolist() == expected.tolist()
    assert gone == (expected != np.arange(300)).sum() > 50


def test_nothing_goes_without_links(connection, tmp_path):
    assert write_kept(connection, edges.of_files([]), 5, tmp_path / "kept.parquet") == 0
    assert connection.sql(edges.of_files([tmp_path / "kept.parquet"])).fetchall() == []


@pytest.mark.parametrize("seed", range(3))
def test_each_component_is_called_by_its_least(seed, connection, tmp_path):
    one, other, _ = graph(seed, 300, 150)
    least = neighbours.components(300, [(one, other)])
    query = stored(connection, one * 1000 + 7, other * 1000 + 7)
    create_components(connection, "found", query, tmp_path)
    found = connection.sql("SELECT node, label FROM found ORDER BY node").fetchall()
    expected = [(n * 1000 + 7, int(of) * 1000 + 7) for n, of in enumerate(least) if n != of]
    assert found == expected
    assert len(expected) > 30


def test_no_links_no_components(connection, tmp_path):
    create_components(connection, "found", edges.of_files([]), tmp_path)
    assert connection.sql("SELECT * FROM found").fetchall() == []


def test_a_file_of_no_edges_is_there_and_one_that_was_lost_is_missed(connection, tmp_path):
    assert (
        edges.write(tmp_path / "none.parquet", [(np.empty(0, np.int64), np.empty(0, np.int64))])
        == 0
    )
    block = np.arange(3), np.arange(3) + 5
    assert edges.write(tmp_path / "some.parquet", [block, block]) == 6
    query = edges.of_files([tmp_path / "none.parquet", tmp_path / "some.parquet"])
    assert sorted(connection.sql(query).fetchall()) == sorted([(0, 5), (1, 6), (2, 7)] * 2)
    (tmp_path / "none.parquet").unlink()
    with pytest.raises(duckdb.IOException, match=r"none\.parquet"):
        connection.sql(query)
