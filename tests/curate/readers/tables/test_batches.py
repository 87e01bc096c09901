"""What is read of a table a column at a time, against the same read a row at a time."""

import json
import random
import string

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.readers.candidate import _CONTROL, clean_caption
from curate.readers.counted_notes import CountedNotes
from curate.readers.tables import TableConfig, keys, reader
from curate.readers.tables.column_roles import captions_of, columns_of, text_of
from curate.readers.tables.entries import entries, find, key_files
from curate.readers.tables.keys import RowKeys

TEXTS = ("a cat", " a  cat\n", "", " ", "caf\u00e9\u3000x", "a\ufeffb\x07", None, "7", "a\xa0b")
ODD = (1, 1.0, -2.5, float("nan"), float("inf"), 2**63, True, None, "x", ["a", None], {"b": 1})


def by_rows(config):
    """Key, captions and columns of each row that is not left out, by the functions for one row."""
    tables = find(config, [])
    row_keys, files = RowKeys(), key_files(tables)
    found = []
    for entry in entries(config, tables, CountedNotes([])):
        if entry.excluded:
            continue
        roles, record = entry.roles, entry.record
        named = {"url": text_of(record.get(roles.url))} if roles.url else {}
        named |= {"file_name": text_of(record.get(roles.image))} if roles.image else {}
        columns = named | columns_of(record, roles.rest)
        captions = captions_of(record, roles.captions)
        key = entry.key(row_keys, files[entry.table])
        found.append(repr((key, captions, list(columns.items()))))
    return found


def by_columns(config):
    candidates = reader.read(config).candidates()
    return [repr((c.key, c.captions, list(c.columns.items()))) for c in candidates]


def config_of(tmp_path, path, **options):
    (tmp_path / "images").mkdir(exist_ok=True)
    return TableConfig(
        name="t", reader="table", path=str(path), images_dir=str(tmp_path / "images"), **options
    )


def records(seed, count, draw):
    chance = random.Random(seed)
    for number in range(count):
        row = {
            "url": f"http://a/{chance.randrange(count // 2)}.jpg"
            if chance.random() < 0.9
            else None,
            "caption": chance.choice(TEXTS),
            "width": float(number) if chance.random() < 0.8 else None,
            "more": draw(chance),
        }
        if number > 1500 and chance.random() < 0.01:
            row[f"new_{chance.choice(string.ascii_lowercase)}"] = chance.choice(ODD)
        yield row


@pytest.mark.parametrize("seed", range(3))
def test_json_lines_with_odd_values_and_new_fields(tmp_path, seed):
    path = tmp_path / "t.jsonl"
    rows = records(seed, 2500, lambda chance: chance.choice(ODD))
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = config_of(tmp_path, path, leave_out={"caption": "7"})
    found = by_columns(config)
    assert found == by_rows(config)
    assert 2000 < len(found) < 2500


KINDS = {
    "text": (pa.string(), ("x", "y", None)),
    "whole": (pa.int64(), (1, -(2**63), None)),
    "unsigned": (pa.uint64(), (1, 2**64 - 1)),
    "float": (pa.float32(), (1.5, float("nan"), None)),
    "exact": (pa.float64(), (0.1, 3.0)),
    "flag": (pa.bool_(), (True, None)),
    "list": (pa.list_(pa.string()), (["a", None], [], None)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_parquet_of_each_type(tmp_path, kind):
    of, values = KINDS[kind]
    rows = list(records(1, 5000, lambda chance: chance.choice(values)))
    columns = {name: [row[name] for row in rows] for name in ("url", "caption", "width")}
    more = pa.array([row["more"] for row in rows], of)
    table = pa.table({**columns, "more": more, "key": [f"a/{i % 4000}" for i in range(len(rows))]})
    pq.write_table(table, tmp_path / "t.parquet")
    config = config_of(tmp_path, tmp_path / "t.parquet", caption_columns=["caption", "more"])
    if kind not in ("text", "list"):
        config.caption_columns = None
    assert by_columns(config) == by_rows(config)


@pytest.mark.parametrize("bad", [0, 1200])
def test_text_with_lines_of_other_lengths(tmp_path, bad):
    lines = [f"http://a/{i % 900}.jpg\tcat {i % 7}" for i in range(3000)]
    for number in random.Random(bad).sample(range(len(lines)), bad):
        lines[number] = "broken"
    (tmp_path / "t.tsv").write_text("url\tcaption\n" + "\n".join(lines))
    config = config_of(tmp_path, tmp_path / "t.tsv")
    source = reader.read(config)
    assert by_columns(config) == by_rows(config)
    assert sum(1 for _ in source.candidates()) == len(lines) - bad
    noted = [note for note in source.notes if note.startswith("lines with another number")]
    assert [note.split(":")[1] for note in noted] == ([f" {bad}, such as t.tsv"] if bad else [])


def test_rows_before_damage_come_before_its_error(tmp_path):
    lines = ['"http://a/1","cat"'] * 1500 + ['"http://a/1","never closed'] + ["x"] * 3000
    (tmp_path / "t.csv").write_text("url,caption\n" + "\n".join(lines))
    stream = entries(c := config_of(tmp_path, tmp_path / "t.csv"), find(c, []), CountedNotes([]))
    assert [next(stream).number for _ in range(1500)][-1] == 1501
    with pytest.raises(ValueError, match="has no end"):
        next(stream)


def test_limit_reads_no_more_keys_than_it_needs(tmp_path):
    path = tmp_path / "t.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in records(0, 2500, lambda _: None)))
    config = config_of(tmp_path, path)
    source = reader.read(config)
    stream = source.candidates()
    for _ in range(10):
        next(stream)
    assert [note.split(":")[1] for note in source.notes] == [" 10, such as t.jsonl"]


@pytest.mark.parametrize("filter_bytes", [16, 2**10, 2**26])
def test_repeated_keys(monkeypatch, filter_bytes):
    """In batches of any size as one at a time, also where the filter is so full that it guesses wrong."""
    monkeypatch.setattr(keys, "_FILTER_BYTES", filter_bytes)
    chance, one, many = random.Random(0), RowKeys(), RowKeys()
    for _ in range(40):
        rows = range(chance.randrange(1, 60))
        ids = [chance.choice(["", "", "a/1", "b", "0042"]) for _ in rows]
        contents = [f"u{chance.randrange(500)}\0\0c" for _ in rows]
        said = [
            one.key(i, tuple(c.split("\0")), "f", n)
            for i, c, n in zip(ids, contents, rows, strict=True)
        ]
        assert many.keys(ids, contents, "f", rows) == said


def test_clean_captions_stay_as_they_are():
    """Every character of Unicode, alone, inside and at the end."""
    for code in range(0x110000):
        text = f"a{chr(code)}b{chr(code)}"
        assert clean_caption(text) == " ".join(_CONTROL.sub("", text).split())
