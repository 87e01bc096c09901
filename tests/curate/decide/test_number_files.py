"""Columns in files, against arrays in memory."""

import numpy as np
import pytest

from curate.decide.number_files import NumberFile

PAIR = np.dtype([("key", "<u8"), ("at", "<i8")])


@pytest.mark.parametrize("kind", [np.int64, np.int8, np.uint64])
def test_as_an_array(tmp_path, kind):
    rng = np.random.default_rng(0)
    column, whole = NumberFile(tmp_path / "column", kind), np.empty(0, kind)
    assert len(column.read()) == len(column.take(np.empty(0, np.int64))) == 0
    assert list(column.blocks(3)) == []
    for size in (0, 1, 5, 12, 0, 3):
        values = rng.integers(0, 100, size).astype(kind)
        column.append(values)
        whole = np.concatenate([whole, values])
        assert len(column) == len(whole)
    assert column.read().tolist() == whole.tolist()
    assert column.read(4, 9).tolist() == whole[4:9].tolist()
    assert column.read(19, 50).tolist() == whole[19:].tolist()
    places = rng.integers(0, len(whole), 40)
    assert column.take(places).tolist() == whole[places].tolist()
    assert column.take(places).dtype == column.read().dtype == kind
    assert [len(block) for block in column.blocks(8)] == [8, 8, 5]
    assert np.concatenate(list(column.blocks(8))).tolist() == whole.tolist()


def test_records_and_what_is_begun_again(tmp_path):
    column = NumberFile(tmp_path / "column", PAIR)
    rows = np.array([(1, 2), (2**63, -1)], PAIR)
    column.append(rows)
    column.append(rows[::-1])
    assert column.read(1, 3).tolist() == [(2**63, -1)] * 2
    assert len(NumberFile(tmp_path / "column", PAIR).read()) == 0
