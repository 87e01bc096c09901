"""Rows of parts by number, against one table of all."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.annotate.embeddings import Embeddings
from curate.annotate.rows import by_part, starts, take
from curate.run import parquet
from curate.run.schema import UserError

SIZES = [3, 0, 5, 1, 7]


@pytest.fixture
def parts(tmp_path):
    paths, row = [], 0
    for number, size in enumerate(SIZES):
        rows = range(row, row + size)
        vectors = [None if n % 4 == 3 else np.full(2, n, np.float32).tobytes() for n in rows]
        table = {"key": [f"k{n}" for n in rows], "caption": [f"c{n}" for n in rows]}
        table |= {"image_embedding": pa.array(vectors, pa.binary())}
        paths.append(tmp_path / f"{number}.parquet")
        pq.write_table(pa.table(table), paths[-1])
        row += size
    return paths


def test_rows_are_taken_in_the_order_that_they_are_asked_for(parts):
    assert starts(parts).tolist() == [0, 3, 3, 8, 9, 16]
    rows = np.random.default_rng(0).integers(0, 16, 40)
    found = take(parts, rows, ["caption", "key"])
    assert found.column_names == ["caption", "key"]
    assert found["key"].to_pylist() == [f"k{n}" for n in rows]
    assert found["caption"].to_pylist() == [f"c{n}" for n in rows]
    assert take(parts, rows[:0], ["key"]).num_rows == 0
    shared = {
        number: within.tolist() for number, _, within in by_part(starts(parts), np.arange(16))
    }
    assert shared == {0: [0, 1, 2], 2: [0, 1, 2, 3, 4], 3: [0], 4: [0, 1, 2, 3, 4, 5, 6]}


def test_only_the_parts_that_hold_them_are_read(parts):
    parts[2].write_bytes(b"damaged")
    with pytest.raises(UserError, match="damaged"):
        starts(parts)
    with pytest.raises(UserError, match="damaged"):
        Embeddings(parts)
    sizes = np.array([0, 3, 3, 8, 9, 16])
    assert [number for number, _, _ in by_part(sizes, np.array([15, 0, 8]))] == [0, 3, 4]


def test_vectors_of_rows_asked_for_twice_and_of_none(parts):
    embedded = Embeddings(parts)
    rows = np.array([12, 3, 0, 12, 15, 4])
    expected = [[n, n] if n % 4 != 3 else [0, 0] for n in rows]
    with embedded.images_on_disk(rows) as vectors:
        assert vectors.tolist() == expected
    assert embedded.images_or_zero(np.array([3, 7])).shape == (2, 1)
    assert embedded.images(np.array([4, 4, 0])).tolist() == [[4, 4], [4, 4], [0, 0]]


@pytest.fixture
def certified(tmp_path):
    """Parts with checksums: one whole, one with a byte changed ahead of its footer."""
    paths = []
    for number in range(2):
        vectors = [np.full(2, 3 * number + n, np.float32).tobytes() for n in range(3)]
        table = {"key": [f"k{number}{n}" for n in range(3)]}
        table |= {"image_embedding": pa.array(vectors, pa.binary())}
        paths.append(tmp_path / f"{number}.parquet")
        parquet.write_table(paths[-1], pa.table(table))
    content = bytearray(paths[1].read_bytes())
    content[content.index(b"k11") + 1] ^= 1
    paths[1].write_bytes(content)
    return paths


def test_parts_are_checked_where_they_are_read_and_not_where_they_are_counted(
    certified, monkeypatch
):
    def refused(path):
        raise AssertionError(f"{path} is read whole")

    with monkeypatch.context() as counting:
        counting.setattr(parquet, "is_intact", refused)
        assert starts(certified).tolist() == [0, 3, 6]
        embedded = Embeddings(certified)
        assert embedded.has_all_images
        assert embedded.drawn_bits == 0
        assert embedded.starts.tolist() == [0, 3, 6]
        assert Embeddings(certified, None, [3, 3]).starts.tolist() == [0, 3, 6]
    assert embedded.images(np.array([2, 0])).tolist() == [[2, 2], [0, 0]]
    assert take(certified, np.array([1]), ["key"])["key"].to_pylist() == ["k01"]
    for read in (
        lambda: embedded.images(np.array([5])),
        lambda: embedded.images_or_zero(np.array([0, 5])),
        lambda: [*embedded.image_blocks()],
        lambda: take(certified, np.array([5]), ["key"], embedded.starts),
    ):
        with pytest.raises(UserError, match=r"1\.parquet is damaged"):
            read()
