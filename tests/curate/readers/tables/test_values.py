"""The values of a table's columns: their types, their names, their lengths and their encodings."""

import datetime as dt
import gzip
import json
import uuid
from decimal import Decimal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from curate import readers
from curate.annotate.table import source_column
from curate.filters.columns import ColumnConfig, rules
from curate.readers.tables import TableConfig
from curate.run.schema import UserError


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for name in ("a", "b", "c"):
        Image.new("RGB", (4, 4), "red").save(folder / f"{name}.png")
    return folder


def read(path, images_dir, **options):
    config = TableConfig(
        name="web", reader="table", path=str(path), images_dir=str(images_dir), **options
    )
    return readers.read(config)


def columns_of(path, images):
    source = read(path, images)
    return [dict(candidate.columns) for candidate in source.candidates()], source.notes


def dictionary(values, kind):
    return pa.array(values, kind).dictionary_encode()


COLUMNS = {
    "decimal": (pa.array([Decimal("5.50"), None], pa.decimal128(5, 2)), 5.5),
    "whole_decimal": (pa.array([Decimal("7"), None], pa.decimal128(20, 0)), 7),
    "long_decimal": (
        pa.array([Decimal("0.12345678901234567890"), None], pa.decimal128(38, 20)),
        "0.12345678901234567890",
    ),
    "half": (pa.array(np.array([1.5, np.nan], np.float16)), 1.5),
    "category": (dictionary(["x", None], pa.string()), "x"),
    "counted": (dictionary([3, None], pa.int8()), 3),
    "view": (pa.array(["v", None], pa.string_view()), "v"),
    "taken": (pa.array([dt.datetime(2024, 1, 2), None], pa.timestamp("us")), "2024-01-02 00:00:00"),
    "nanoseconds": (
        pa.array([dt.datetime(2024, 1, 2, 3), None], pa.timestamp("ns")),
        "2024-01-02 03:00:00",
    ),
    "zoned": (
        pa.array([dt.datetime(2024, 1, 2), None], pa.timestamp("s", "UTC")),
        "2024-01-02 00:00:00+00:00",
    ),
    "day": (pa.array([dt.date(2024, 1, 2), None]), "2024-01-02"),
    "time": (pa.array([dt.time(1, 2), None], pa.time32("s")), "01:02:00"),
    "lasting": (pa.array([dt.timedelta(hours=1), None], pa.duration("s")), "1:00:00"),
    "uuid": (pa.array([uuid.UUID(int=7).bytes, None], pa.uuid()), str(uuid.UUID(int=7))),
    "sure": (pa.array([True, None]), True),
    "nested": (pa.array([{"x": Decimal("0.5"), "y": dt.date(2024, 1, 2)}, None]), None),
}


def test_parquet_values_keep_their_types_to_the_ledger_and_the_json(tmp_path, images):
    table = {"file_name": ["a.png", "b.png"], "text": ["one", "two"]}
    table |= {name: column for name, (column, _) in COLUMNS.items()}
    pq.write_table(pa.table(table), tmp_path / "t.parquet")
    (found, missing), notes = columns_of(tmp_path / "t.parquet", images)
    assert set(missing) == {"file_name"}
    assert notes == []
    assert found.pop("file_name") == "a.png"
    assert found.pop("nested") == '{"x": 0.5, "y": "2024-01-02"}'
    assert found == {name: value for name, (_, value) in COLUMNS.items() if name != "nested"}
    for name, value in found.items():
        assert source_column([value, None]).to_pylist() == [value, None]
        assert json.loads(json.dumps({name: value})) == {name: value}


@pytest.mark.parametrize("name", ["decimal", "half", "counted", "whole_decimal"])
def test_bounds_hold_for_numbers_of_any_type(tmp_path, images, name):
    column, value = COLUMNS[name]
    table = {"file_name": ["a.png", "b.png"], "text": ["one", "two"], name: column}
    pq.write_table(pa.table(table), tmp_path / "t.parquet")
    found, _ = columns_of(tmp_path / "t.parquet", images)
    frame = pd.DataFrame({name: source_column([row.get(name) for row in found]).to_pandas()})
    missing, low = rules({name: ColumnConfig(minimum=value)})
    assert missing.drops(frame).tolist() == [False, True]
    assert low.drops(frame).tolist() == [False, False]
    assert rules({name: ColumnConfig(minimum=value + 1)})[1].drops(frame)[0]


def test_dates_beyond_python_s_are_no_end_of_the_run(tmp_path, images):
    late = pa.array([253_402_300_800, None], pa.timestamp("s"))  # the year 10000
    table = pa.table({"file_name": ["a.png", "b.png"], "text": ["1", "2"], "taken": late})
    pq.write_table(table, tmp_path / "t.parquet")
    (first, second), _ = columns_of(tmp_path / "t.parquet", images)
    assert isinstance(first["taken"], str)
    assert "taken" not in second


PICTURES = {
    "thumb": pa.array([b"x"], pa.binary()),
    "wide": pa.array([b"x"], pa.large_binary()),
    "view": pa.array([b"x"], pa.binary_view()),
    "fixed": pa.array([b"xyz"], pa.binary(3)),
    "coded": pa.array([b"x"], pa.binary()).dictionary_encode(),
    "stored": pa.array([{"bytes": b"x", "path": "a.png"}]),
    "list": pa.array([[{"bytes": b"x", "path": None}]]),
}


def test_pictures_in_other_columns_are_left_out_with_a_note(tmp_path, images):
    table = pa.table({"file_name": ["a.png"], "text": ["one"], **PICTURES})
    pq.write_table(table, tmp_path / "t.parquet")
    (found,), notes = columns_of(tmp_path / "t.parquet", images)
    assert found == {"file_name": "a.png"}
    expected = {f"columns of bytes left out, {name!r}: 1, such as t.parquet" for name in PICTURES}
    assert set(notes) == expected


def test_text_is_one_type_however_a_file_stores_it(tmp_path, images):
    folder = tmp_path / "t"
    folder.mkdir()
    kinds = (
        pa.string(),
        pa.large_string(),
        pa.string_view(),
        pa.dictionary(pa.int8(), pa.string()),
    )
    for number, kind in enumerate(kinds):
        row = {"file_name": pa.array(["a.png"], kind), "text": pa.array(["one"], kind)}
        pq.write_table(pa.table(row), folder / f"{number}.parquet")
    source = read(folder, images)
    assert [(c.captions, c.columns["file_name"]) for c in source.candidates()] == [
        (("one",), "a.png")
    ] * len(kinds)


@pytest.mark.parametrize(
    "names", [["file_name", "text", "text"], ["text", "file_name", "\ufefftext"]]
)
@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_two_columns_of_one_name_are_refused_by_name(tmp_path, images, names, kind):
    path = tmp_path / f"t.{kind}"
    if kind == "csv":
        path.write_text(f"{','.join(names)}\na.png,one,two\n")
    else:
        pq.write_table(pa.table([pa.array(["a.png"])] * 3, names=names), path)
    with pytest.raises(UserError, match=r"two columns of one name: text; rename"):
        read(path, images)


def test_columns_without_a_name_are_no_columns_of_one_name(tmp_path, images):
    path = tmp_path / "t.csv"
    path.write_text(",file_name,text,\n0,a.png,one,\n")
    assert [c.captions for c in read(path, images).candidates()] == [("one",)]
    path = tmp_path / "t.parquet"  # by whose names columns are read
    pq.write_table(pa.table([pa.array(["a.png"])] * 4, names=["", "file_name", "text", ""]), path)
    with pytest.raises(UserError, match="two columns of one name: ''; rename"):
        read(path, images)


def test_two_fields_of_one_name_are_refused_by_name(tmp_path, images):
    path = tmp_path / "t.jsonl"
    path.write_text(
        '{"file_name": "a.png", "text": "1"}\n{"file_name": "b.png", "text": 1, "text": 2}'
    )
    with pytest.raises(UserError, match=r"t\.jsonl:2 two fields are called 'text'"):
        read(path, images)


def test_json_numbers_stay_numbers(tmp_path, images):
    path = tmp_path / "t.jsonl"
    path.write_text('{"file_name": "a.png", "text": 7, "score": 0.5, "count": 3, "ok": true}')
    (found,), _ = columns_of(path, images)
    assert found == {"file_name": "a.png", "score": 0.5, "count": 3, "ok": True}


def captions(path, images, **options):
    source = read(path, images, **options)
    return [c.captions[0] for c in source.candidates()], source.notes


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-8-sig"])
@pytest.mark.parametrize("packed", [False, True])
def test_text_of_any_width_is_read(tmp_path, images, encoding, packed):
    text = "file_name,text\r\na.png,größe\r\nb.png,two\r\n".encode(encoding)
    path = tmp_path / ("t.csv.gz" if packed else "t.csv")
    path.write_bytes(gzip.compress(text) if packed else text)
    assert captions(path, images) == (["größe", "two"], [])
    lines = '{"file_name": "a.png", "text": "größe"}\n'.encode(encoding)
    (tmp_path / "l.jsonl").write_bytes(lines)
    assert captions(tmp_path / "l.jsonl", images) == (["größe"], [])


def test_byte_order_marks_anywhere(tmp_path, images):
    path = tmp_path / "t.csv"
    part = b'\xef\xbb\xbf"file_name",text\na.png,\xef\xbb\xbfone\n'
    path.write_bytes(part + b"\xef\xbb\xbfb.png,two\n")
    assert captions(path, images) == (["one", "two"], [])
    table = pa.table({"\ufefffile_name": ["a.png"], "text": ["one"]})
    pq.write_table(table, tmp_path / "t.parquet")
    assert captions(tmp_path / "t.parquet", images) == (["one"], [])


def test_other_encodings_are_detected_or_named(tmp_path, images):
    path = tmp_path / "t.csv"
    words = ["Größe", "Mädchen mit Hut", "ein Bär läuft", "schöne Grüße", "fünf Äpfel"]
    rows = [f"a.png,{word}" for word in words]
    path.write_bytes("\n".join(["file_name,text", *rows]).encode("cp1252"))
    found, notes = captions(path, images)
    assert found == words
    assert [note.partition(":")[0] for note in notes] == [
        "lines that are not UTF-8, read as cp1252"
    ]
    path.write_bytes("file_name,text\na.png,żółw".encode("cp1250"))
    assert "\ufffd" in captions(path, images)[0][0]
    assert captions(path, images, encoding="cp1250")[0] == ["żółw"]
    with pytest.raises(UserError, match=r"dataset\.encoding=latin9000"):
        read(path, images, encoding="latin9000")


def test_a_long_field_is_read_and_an_open_quote_is_still_found(tmp_path, images):
    path = tmp_path / "t.csv"
    long = "word " * 200_000
    path.write_text(f'file_name,text\na.png,"{long}"\nb.png,two\n')
    assert captions(path, images)[0] == [long.strip(), "two"]
    for damaged in (
        'a.png,"one\nb.png,two\n',
        'a.png,"one\n' + "b.png,two\n" * 2000 + 'c.png,"x\n',
    ):
        path.write_text(f"file_name,text\n{damaged}")
        with pytest.raises(UserError, match=r"a quote is not closed.*dataset\.quotes=false"):
            list(read(path, images).candidates())
