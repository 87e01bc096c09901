"""What footers say of columns whose names look like members of each other."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.annotate.layout import Layout
from curate.annotate.parts import read_part

STRUCT = pa.array([{"b": 1, "c": "x"}] * 3, pa.struct([("b", pa.int64()), ("c", pa.string())]))
COLUMNS = {
    "a": pa.array([7, 8, 9]),
    "a.b": pa.array(["x", None, "y"]),
    "a.b.c": pa.array([1, 2, None]),
    "s": STRUCT,
    "s.b": pa.array([1.5, None, 2.5]),
    "l": pa.array([[1], [], [2, 3]], pa.list_(pa.int64())),
    "l.list.element": pa.array([None, "x", "y"]),
    "m": pa.array([[("k", 1)]] * 3, pa.map_(pa.string(), pa.int64())),
    "d": pa.array(["x", "x", "x"]).dictionary_encode(),
    "last": pa.array([1, 2, 3]),
}


@pytest.mark.parametrize("turned", [False, True])
def test_a_column_is_no_member_of_another(tmp_path, turned):
    names = list(COLUMNS)[:: -1 if turned else 1]
    pq.write_table(pa.table({name: COLUMNS[name] for name in names}), tmp_path / "part.parquet")
    layout = Layout.of([tmp_path / "part.parquet"])
    assert layout.missing >= {"a.b", "a.b.c", "s.b", "l.list.element"}
    assert not layout.missing & {"a", "s", "m", "d", "last"}
    assert layout.schema.names == names
    assert layout.categories == {"d": ("x",)}


def test_numbers_that_no_float_holds_are_looked_for_in_the_column_itself(tmp_path):
    """Fractions in one part's ``a``; in the other's ``a``, or in its ``a.b``, a number of too many digits."""
    many = 2**53 + 1
    for number, (own, other) in enumerate([([many], [1]), ([1], [many])]):
        parts = [tmp_path / f"{number}-{half}.parquet" for half in range(2)]
        pq.write_table(pa.table({"a": own, "a.b": other}), parts[0])
        pq.write_table(pa.table({"a": [0.5], "a.b": other}), parts[1])
        assert Layout.of(parts).mixed == ({"a"} if number == 0 else frozenset())


def test_a_column_is_read_without_those_whose_names_begin_so(tmp_path):
    pq.write_table(pa.table(COLUMNS), tmp_path / "part.parquet")
    for name in COLUMNS:
        assert read_part(tmp_path / "part.parquet", [name]).column_names == [name]
    left = read_part(tmp_path / "part.parquet", without=["a.b", "s.b"]).column_names
    assert left == [name for name in COLUMNS if name not in ("a.b", "s.b")]
