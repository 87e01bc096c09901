"""Tables of URLs and captions: file types checked, rows streamed, pictures found."""

import bz2
import errno
import gzip
import io
import json
import os
import tarfile

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from curate import readers
from curate.measures.decode import decode
from curate.measures.unreadable import MISSING_FILE, UnreadableImage
from curate.readers.tables import TableConfig
from curate.readers.tables.keys import RowKeys
from curate.run.schema import UserError

COLOURS = {"red": (255, 0, 0), "green": (0, 128, 0), "blue": (0, 0, 255)}


def picture(colour):
    stream = io.BytesIO()
    Image.new("RGB", (4, 4), colour).save(stream, "PNG")
    return stream.getvalue()


def write_shard(path, samples):
    """A shard as img2dataset writes it; ``samples`` are (key, colour, url, caption)."""
    path.parent.mkdir(exist_ok=True, parents=True)
    with tarfile.open(path, "w") as tar:
        for key, colour, url, caption in samples:
            record = {"url": url, "caption": caption, "key": key, "status": "success"}
            parts = {"png": picture(colour), "txt": caption.encode()}
            if url:
                parts["json"] = json.dumps(record).encode()
            for extension, data in parts.items():
                member = tarfile.TarInfo(f"{key}.{extension}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for colour in COLOURS:
        (folder / f"{colour}.png").write_bytes(picture(colour))
    return folder


def read(path, images_dir, **options):
    config = TableConfig(
        name="web", reader="table", path=str(path), images_dir=str(images_dir), **options
    )
    return readers.read(config)


def listed(source):
    return list(source.candidates())


def colour_of(source, candidate):
    """Name of the picture's colour, or the reason why there is none."""
    try:
        pixel = decode(source.load(candidate.location)).getpixel((0, 0))
    except UnreadableImage as error:
        return error.reason
    return next(name for name, value in COLOURS.items() if value == pixel)


def found(source):
    return [colour_of(source, candidate) for candidate in listed(source)]


ROWS = [("http://x/a/red.png", "a red one"), ("http://x/blue.png", "a blue one")]


def write_rows(path, rows=ROWS, names=("url", "text")):
    records = [dict(zip(names, row, strict=True)) for row in rows]
    table = pd.DataFrame(records)
    inner = path.name.removesuffix(".gz")
    if inner.endswith(".parquet"):
        table.to_parquet(path)
    elif inner.endswith(".jsonl"):
        table.to_json(path, orient="records", lines=True)
    else:
        table.to_csv(path, index=False, sep="\t" if inner.endswith(".tsv") else ",")
    return path


# ---- files


@pytest.mark.parametrize(
    "name",
    ["t.csv", "t.tsv", "t.jsonl", "t.parquet", "t.csv.gz", "t.tsv.gz", "t.jsonl.gz"],
)
def test_all_types_read_the_same(tmp_path, images, name):
    source = read(write_rows(tmp_path / name), images)
    first, second = listed(source)
    assert first.captions == ("a red one",)
    assert first.columns == {"url": "http://x/a/red.png"}
    assert found(source) == ["red", "blue"]
    assert first.version != second.version
    assert source.total == (2 if name.endswith("parquet") else None)
    (note,) = source.notes
    assert note.startswith("pictures matched by the last part of their address: 2, such as t.")
    assert listed(source) == [first, second]


@pytest.mark.parametrize(
    ("text", "caption"),
    [
        ("url;text\nhttp://x/blue.png;a blue one, small\n", "a blue one, small"),
        ("\nsep=;\nurl;text\nhttp://x/blue.png;blue, small\n", "blue, small"),
        ('url,text\nhttp://x/blue.png,"a; b"\n', "a; b"),
        ('text,"url"\na; b,http://x/blue.png\n', "a; b"),
    ],
)
def test_a_spreadsheet_s_semicolons_are_told_from_commas(tmp_path, images, text, caption):
    (tmp_path / "t.csv").write_text(text)
    [only] = listed(read(tmp_path / "t.csv", images))
    assert only.captions == (caption,)


def test_a_first_record_of_several_lines_is_parted_by_commas(tmp_path, images):
    (tmp_path / "t.csv").write_text('"a; b\nlonger",http://x/blue.png\n')
    [only] = listed(read(tmp_path / "t.csv", images, columns=["caption", "url"]))
    assert [caption.split() for caption in only.captions] == [["a;", "b", "longer"]]


def test_a_folder_and_a_glob_skip_what_downloads_leave(tmp_path, images):
    folder = tmp_path / "laion"
    (folder / "sub").mkdir(parents=True)
    write_rows(folder / "sub/part-1.parquet", ROWS[1:])
    write_rows(folder / "part-0.parquet", ROWS[:1])
    for name in (".part-0.parquet.crc", "_SUCCESS", "part-2.parquet.part", "part-2.parquet.crc"):
        (folder / name).write_bytes(b"crc\0")
    (folder / "README.md").write_text("read me")
    source = read(folder, images)
    assert found(source) == ["red", "blue"]
    assert [note.split(",")[0] for note in source.notes] == [
        "files skipped because of their names: 4",
        "files of other types: 1",
        "pictures matched by the last part of their address: 2",
    ]
    assert found(read(f"{folder}/**/part-1.*", images)) == ["blue"]


TRUNCATED = pd.DataFrame({"url": ["u"] * 9, "text": ["t"] * 9}).to_parquet()[:-20]


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.parquet", b"<!DOCTYPE html><p>Not found", "HTML"),
        ("a.csv", b"\n <?xml version='1.0'?><Error>AccessDenied", "HTML or XML"),
        ("a.parquet", b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "LFS"),
        ("a.tsv", gzip.compress(b"url\ttext\nu\tt\n", mtime=0), "compressed by gzip"),
        ("a.tsv.gz", b"url\ttext\nu\tt\n", "plain text"),
        ("a.tsv.gz", gzip.compress(b"<html>", mtime=0), "HTML"),
        ("a.csv.gz", gzip.compress(b"url,text\nu,t\n" * 999, mtime=0)[:-30], "damaged"),
        ("a.csv.gz", gzip.compress(b"", mtime=0)[:10] + b"\xff" * 40, "damaged"),
        ("a.parquet", TRUNCATED, "truncated parquet"),
        ("a.parquet", b"PAR1" + b"\7" * 40 + b"PAR1", "damaged"),
        ("a.csv", b"", "empty"),
        ("a.parquet", "{}".encode("utf-16"), "UTF-16"),
        ("a.csv", b"url,text\0\0", "binary"),
        ("a.jsonl", b'["no", "object"]\n', "no JSON object"),
        ("a.csv", b'url,text\nu,"t\n' + b"u,t\n" * 40_000, "dataset.quotes=false"),
        ("a.csv", b"url,text\nu,t,v\nu,t,v", "dataset.columns"),
        ("a.csv", b"a,b\n1,2\n", "dataset.url_column"),
        ("a.csv", b"url,url,text\n1,2,3\n", "two columns of one name"),
        ("a.doc", b"url,text\n", "dataset.file_type"),
    ],
)
def test_a_file_is_named_for_what_it_is(tmp_path, images, name, content, says):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UserError, match=says) as raised:
        listed(read(path, images))
    assert str(path) in str(raised.value) or says == "dataset.url_column"


@pytest.mark.parametrize("closed", ["tables", "images"])
def test_a_folder_that_cannot_be_opened_is_named(tmp_path, images, closed, monkeypatch):
    """Root may open anything, so that the system's refusal is played."""
    for parent in (tmp_path / "tables", images):
        (parent / "inner").mkdir(parents=True)
    write_rows(tmp_path / "tables/t.csv")
    inner, scandir = str(tmp_path / closed / "inner"), os.scandir

    def refusing(path):
        if str(path) == inner:
            raise PermissionError(errno.EACCES, "Permission denied", inner)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    with pytest.raises(PermissionError, match=inner):
        found(read(tmp_path / "tables", images))


def test_a_picture_itself_in_the_column_of_names_is_a_missing_file(tmp_path, images):
    write_shard(images / "00000.tar", [])
    path = write_rows(tmp_path / "t.jsonl", [("A" * 5_000, "a red one")], ("image", "text"))
    assert found(read(path, images)) == ["missing file"]


def test_what_is_missing_is_said(tmp_path, images):
    path = write_rows(tmp_path / "t.csv")
    with pytest.raises(UserError, match=r"dataset\.images_dir=FOLDER"):
        readers.read(TableConfig(name="web", reader="table", path=str(path)))
    with pytest.raises(FileNotFoundError, match=r"dataset\.images_dir=FOLDER"):
        read(path, tmp_path / "none")
    with pytest.raises(FileNotFoundError, match=r"dataset\.path=FILE"):
        read(tmp_path / "*.tsv", images)
    with pytest.raises(UserError, match="other types: 3"):
        read(images, images)
    with pytest.raises(UserError, match="'address'"):
        read(path, images, url_column="address")
    write_rows(tmp_path / "t.parquet")
    with pytest.raises(UserError, match="several types"):
        read(tmp_path, images)


def test_parquet_columns_keep_their_types_over_the_files(tmp_path, images):
    write_rows(tmp_path / "a.parquet", [(*ROWS[0], 3)], ("url", "text", "size"))
    write_rows(tmp_path / "b.parquet", [(*ROWS[1], "3")], ("url", "text", "size"))
    with pytest.raises(UserError, match="'size'"):
        read(tmp_path, images)


# ---- rows


def test_lines_that_are_no_rows_are_counted(tmp_path, images):
    path = tmp_path / "t.tsv"
    lines = [b"\xef\xbb\xbfurl\ttext", b"u1\ta", b"u2", b"", b"u3\tb\tc", b"u4\tcaf\xe9", b"\t"]
    path.write_bytes(b"\r\n".join(lines))
    source = read(path, images)
    assert [(c.columns["url"], c.captions) for c in listed(source)] == [
        ("u1", ("a",)),
        ("u4", ("caf\ufffd",)),
        ("", ("",)),
    ]
    notes = [
        "lines with another number of columns: 2, such as t.tsv:3",
        "lines that are not UTF-8, with \ufffd for what cannot be decoded: 1, such as t.tsv:6",
        "rows whose image is not in dataset.images_dir: 3, such as t.tsv:2",
    ]
    assert sorted(source.notes) == sorted(notes)
    listed(source)
    assert sorted(source.notes) == sorted(notes)


def test_lines_nested_too_deep_are_counted(tmp_path, images):
    path = tmp_path / "t.jsonl"
    deep = ['{"url": ' + "[" * depth + "]" * depth + "}" for depth in (400, 200_000)]
    path.write_text("\n".join(['{"url": "http://x/red.png", "text": "t"}', *deep, "["]))
    source = read(path, images)
    assert found(source) == ["red"]
    assert "lines that are not a JSON object: 3, such as t.jsonl:2" in source.notes


@pytest.mark.parametrize("name", ["t.jsonl", "t.parquet"])
def test_numbers_that_are_not_finite_are_missing(tmp_path, images, name):
    row = {"url": "http://x/red.png", "text": "t", "a": float("nan"), "b": float("inf"), "c": 2.5}
    row["d"] = {"e": [float("-inf")]}
    if name.endswith("jsonl"):
        (tmp_path / name).write_text(json.dumps(row))
    else:
        pq.write_table(pa.Table.from_pylist([row]), tmp_path / name)
    (candidate,) = listed(read(tmp_path / name, images))
    assert candidate.captions == ("t",)
    columns = {key: str(value) for key, value in candidate.columns.items()}
    assert columns == {"url": "http://x/red.png", "c": "2.5", "d": '{"e": [null]}'}


def test_json_lines_may_differ_in_their_columns(tmp_path, images):
    path = tmp_path / "t.jsonl"
    lines = ['{"url": "u", "score": 1}', "{broken", '{"url": "v", "text": null, "n": [1]}']
    lines += ['{"url": "w", "text": ["b\\ud800", "c", "b?"], "score": "x"}']
    path.write_text("\n".join(lines))
    source = read(path, images)
    assert [(c.captions, dict(c.columns)) for c in listed(source)] == [
        ((), {"url": "u", "score": 1}),
        ((), {"url": "v", "n": "[1]"}),
        (("b?", "c"), {"url": "w", "score": "x"}),
    ]
    assert "lines that are not a JSON object: 1, such as t.jsonl:2" in source.notes


def test_quotes_are_the_table_s_choice(tmp_path, images):
    path = tmp_path / "t.csv"
    path.write_text('url,text\nu,"one, ""two""\nthree"\nv,four\n')
    source = read(path, images)
    assert [c.captions for c in listed(source)] == [('one, "two" three',), ("four",)]
    assert "records of several lines: 1, such as t.csv:2" in source.notes
    path = tmp_path / "t.tsv"
    path.write_text('url\ttext\nu\t"never closed\nv\tfour\n')
    found = listed(read(path, images, quotes=False))
    assert [c.captions for c in found] == [('"never closed',), ("four",)]


def test_archives_beside_the_pictures_are_noted(tmp_path, images):
    for name in ("more.zip", "rows.csv.gz", "shard.tar.gz"):
        (images / name).write_bytes(b"")
    write_rows(tmp_path / "t.csv")
    notes = read(tmp_path / "t.csv", images).notes
    assert notes[0].startswith("archives, whose content is not read")
    assert "2, such as more.zip" in notes[0]


def test_columns_of_bytes_stay_unread(tmp_path, images):
    picture = {"bytes": b"x", "path": "y"}
    names = ["image", "mask", "depth", "edges"]
    table = pd.DataFrame({"url": ["u"], "text": ["t"]} | {name: [picture] for name in names})
    table.to_parquet(tmp_path / "t.parquet")
    source = read(tmp_path / "t.parquet", images)
    assert [c.columns for c in listed(source)] == [{"url": "u"}]
    assert source.notes[: len(names)] == [
        f"columns of bytes left out, {name!r}: 1, such as t.parquet" for name in names
    ]


# ---- keys


def test_keys_follow_the_content_and_repetitions_get_their_own(tmp_path, images):
    rows = [("u", "a"), ("u", "b"), ("u", "a"), ("u", "a")]
    keys = [c.key for c in listed(read(write_rows(tmp_path / "a.csv", rows), images))]
    assert len(set(keys)) == 4
    assert all(len(key) <= 95 and "." not in key for key in keys)
    moved = [c.key for c in listed(read(write_rows(tmp_path / "b.jsonl", rows[1::-1]), images))]
    assert moved == keys[1::-1]


def test_identifiers_become_keys(tmp_path, images):
    rows = [("7", "u"), ("a/b", "v"), ("7", "w")]
    path = write_rows(tmp_path / "t.csv", [(*row, "t") for row in rows], ("id", "url", "text"))
    first, second, third = (c.key for c in listed(read(path, images)))
    assert first == "7"
    assert second == "a--b"
    assert third.startswith("7-")


def test_no_repetition_is_missed():
    keys = RowKeys()
    made = [keys.key("", (str(number % 2000),), "f", number) for number in range(6000)]
    assert len(set(made)) == 6000
    assert len([key for key in made if "-" not in key]) == 2000


# ---- pictures


def test_a_shard_s_pictures_are_found_by_url_and_caption(tmp_path):
    shards = tmp_path / "shards"
    samples = [
        ("000000003", "red", "http://x/1", "one"),
        ("000000001", "green", "http://x/1", "two"),
        ("000000002", "blue", "http://x/2", "three"),
    ]
    write_shard(shards / "00000.tar", samples)
    rows = [("http://x/1", "two"), ("http://x/1", "one"), ("http://x/1", "other")]
    rows += [("http://x/2", " three\n"), ("http://x/9", "three"), ("http://x/000000003.png", "k")]
    source = read(write_rows(tmp_path / "t.parquet", rows), shards)
    assert found(source) == ["green", "red", "red", "blue", MISSING_FILE, MISSING_FILE]
    first, second, third, *_ = listed(source)
    assert first.location.startswith("00000.tar:")
    assert first.version != second.version == third.version


def test_the_parquet_beside_a_shard_serves_and_can_be_the_table(tmp_path):
    shards = tmp_path / "shards"
    samples = [("000000000", "red", "", "one"), ("000000002", "blue", "", "two")]
    write_shard(shards / "00000.tar", samples)
    rows = [
        ("000000000", "u0", "one", "success"),
        ("000000001", "u1", "lost", "failed_to_download"),
    ]
    rows += [("000000002", "u2", "two", "success")]
    write_rows(shards / "00000.parquet", rows, ("key", "url", "caption", "status"))
    assert found(read(shards, shards)) == ["red", MISSING_FILE, "blue"]
    turned = [(url, caption) for _, url, caption, _ in rows[::-1]]
    assert found(read(write_rows(tmp_path / "t.csv", turned), shards)) == [
        "blue",
        MISSING_FILE,
        "red",
    ]
    assert next(c.key for c in listed(read(shards, shards))) == "000000000"


def test_the_parquet_beside_a_shard_says_nothing_of_samples_that_share_a_key(tmp_path):
    shards = tmp_path / "shards"
    samples = [("c", "red", "", "one"), ("d", "blue", "", "x"), ("c", "green", "", "two")]
    write_shard(shards / "00000.tar", samples)
    rows = [("c", "u0", "one"), ("d", "u1", "x"), ("c", "u2", "two")]
    write_rows(shards / "00000.parquet", rows, ("key", "url", "caption"))
    table = write_rows(tmp_path / "t.csv", [(url, caption) for _, url, caption in rows])
    assert found(read(table, shards)) == [MISSING_FILE, "blue", MISSING_FILE]
    write_shard(
        shards / "00000.tar",
        [(key, *rest[:1], f"v{i}", rest[2]) for i, (key, *rest) in enumerate(samples)],
    )
    table = write_rows(tmp_path / "t.csv", [("v0", "one"), ("v2", "two")])
    assert found(read(table, shards)) == ["red", "green"]  # their own notes do
    write_shard(tmp_path / "bare/00000.tar", samples)
    table = write_rows(
        tmp_path / "t.csv", [("c.png", "one"), ("d.png", "x")], ("file_name", "text")
    )
    assert found(read(table, tmp_path / "bare")) == [MISSING_FILE, "blue"]
    table = write_rows(
        tmp_path / "t.csv", [("c", "u8", "x"), ("d", "u9", "x")], ("key", "url", "caption")
    )
    assert found(read(table, shards)) == [MISSING_FILE] * 2  # d was fetched from another address
    table = write_rows(tmp_path / "t.csv", [("c", "x"), ("d", "x")], ("key", "caption"))
    assert found(read(table, shards)) == [MISSING_FILE, "blue"]


@pytest.mark.parametrize("damage", [lambda whole: b"PAR1" + bytes(60) + whole[64:], bytes.swapcase])
def test_where_the_parquet_beside_a_shard_is_damaged_the_notes_in_it_serve(tmp_path, damage):
    samples = [("000000000", "red", "u0", "one")]
    write_shard(tmp_path / "shards/00000.tar", samples)
    beside = tmp_path / "shards/00000.parquet"
    write_rows(beside, [("000000000", "u0", "one")] * 99, ("key", "url", "caption"))
    beside.write_bytes(damage(beside.read_bytes()))
    table = write_rows(tmp_path / "t.csv", [("u0", "one")])
    assert found(read(table, tmp_path / "shards")) == ["red"]


def test_a_parquet_beside_a_shard_that_may_not_be_read_is_no_damage(tmp_path, monkeypatch):
    write_shard(tmp_path / "shards/00000.tar", [("000000000", "red", "u0", "one")])
    write_rows(tmp_path / "shards/00000.parquet", [("000000000", "u0")], ("key", "url"))
    table = write_rows(tmp_path / "t.csv", [("u0", "one")])

    def refuse(path):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(pq, "ParquetFile", refuse)
    with pytest.raises(PermissionError):
        read(table, tmp_path / "shards")


def test_files_fetched_by_img2dataset_are_found_by_their_notes(tmp_path):
    folder = tmp_path / "images/00000"
    folder.mkdir(parents=True)
    (folder / "000000000.png").write_bytes(picture("blue"))
    (folder / "000000000.json").write_text('{"url": "http://x/2", "caption": "b"}')
    rows = [("http://x/1", "000000000"), ("http://x/2", "000000001")]
    path = write_rows(tmp_path / "t.csv", [(*row, "t") for row in rows], ("url", "id", "text"))
    assert found(read(path, tmp_path / "images")) == [MISSING_FILE, "blue"]


def test_records_that_change_are_read_again(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for number, colour in enumerate(("red", "blue")):
        (folder / f"{number}.png").write_bytes(picture(colour))
        (folder / f"{number}.json").write_text(f'{{"url": "http://x/{number}"}}')
    path = write_rows(tmp_path / "t.csv", [("http://x/0", "a"), ("http://x/1", "b")])
    assert found(read(path, folder)) == ["red", "blue"]
    for number in (0, 1):  # another download into the same folder gives the names to other pictures
        notes = folder / f"{number}.json"
        before = notes.stat()
        notes.write_text(f'{{"url": "http://x/{1 - number}"}}')
        os.utime(notes, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    assert found(read(path, folder)) == ["blue", "red"]


def test_files_are_found_by_identifier_or_by_the_end_of_the_url(tmp_path, images):
    (images / "sub").mkdir()
    (images / "sub/blue.png").write_bytes(picture("green"))  # two files of one name: neither
    (images / "sub/a b.png").write_bytes(picture("green"))
    rows = [("http://x/1", "red"), ("http://x/blue.png", ""), ("http://x/a%20b.png?w=1", "")]
    rows += [("http://x/red.png", "none"), ("http://[x", "")]
    path = write_rows(tmp_path / "t.csv", [(*row, "t") for row in rows], ("url", "uid", "text"))
    source = read(path, images)
    # red.png is the file of the row whose identifier it is, and not of the one whose address ends in it.
    assert found(source) == ["red", MISSING_FILE, "green", MISSING_FILE, MISSING_FILE]
    assert source.notes == [
        "pictures matched by an identifier as file name: 1, such as t.csv:2",
        "rows left without a picture, since several files have their name: 1, such as t.csv:3",
        "rows whose image is not in dataset.images_dir: 3, such as t.csv:3",
        "pictures matched by the last part of their address: 1, such as t.csv:4",
        "rows left without a picture, since another row names the same file as well or better: 1, "
        "such as t.csv:5",
    ]


def test_an_end_that_several_urls_share_finds_nothing(tmp_path, images):
    rows = [("http://x/red.png", "a"), ("http://y/red.png", "b"), ("http://x/blue.png", "c")]
    rows += [("http://x/blue.png", "d")]
    path = write_rows(tmp_path / "t.csv", rows)
    assert found(read(path, images)) == [MISSING_FILE, MISSING_FILE, "blue", "blue"]


def test_a_file_that_the_row_names_is_taken_at_its_word(tmp_path, images):
    outside = tmp_path / "red.png"
    outside.write_bytes(picture("red"))
    names = ["red.png", "./blue.png", str(images / "green.png"), "no.png", "../red.png"]
    names += [str(outside), "a\\u0000b", "http://x/red.png"]
    path = tmp_path / "t.jsonl"
    path.write_text("\n".join(f'{{"file_name": "{name}", "text": "t"}}' for name in names))
    source = read(path, images)
    assert found(source) == ["red", "blue", "green", *[MISSING_FILE] * 5]
    assert listed(source)[4].location == listed(source)[4].version == ""
    with pytest.raises(UnreadableImage, match="leads out of the folder"):
        source.load("../red.png")
    path.write_text("\n".join(f'{{"file_name": "{name}", "text": "t"}}' for name in names[:3]))
    (images / ".curate-index.sqlite").unlink()
    assert found(read(path, images)) == ["red", "blue", "green"]
    assert not list(images.glob(".*"))  # nothing to match


def test_a_file_may_be_named_as_on_windows(tmp_path, images):
    (images / "sub").mkdir()
    (images / "red.png").rename(images / "sub/red.png")
    path = write_rows(tmp_path / "t.csv", [("sub\\red.png", "a")], ("file_name", "text"))
    assert found(read(path, images)) == ["red"]


def folder_of(parent, **colours):
    """A folder of pictures by their names; ``__`` stands for a folder's end."""
    for name, colour in colours.items():
        path = parent / f"{name.replace('__', '/')}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(colour))
    return parent


def test_a_key_belongs_to_the_address_that_was_noted(tmp_path):
    write_shard(tmp_path / "sets/A/00000.tar", [("000000000", "red", "http://a/0", "a0")])
    write_shard(tmp_path / "sets/B/00000.tar", [("000000001", "blue", "http://b/1", "b1")])
    rows = [("000000000", "http://a/0", "a0"), ("000000001", "http://a/1", "a1")]
    table = write_rows(tmp_path / "t.csv", rows, ("key", "url", "caption"))
    assert found(read(table, tmp_path / "sets")) == ["red", MISSING_FILE]


def test_an_identifier_with_a_dot_is_the_whole_name(tmp_path, images):
    for name, colour in (("12.5", "red"), ("7", "green"), ("15.7", "blue")):
        (images / f"{name}.png").write_bytes(picture(colour))
    rows = [(name, "t") for name in ("12", "12.5", "7", "15.7")]
    table = write_rows(tmp_path / "t.jsonl", rows, ("id", "caption"))
    assert found(read(table, images)) == [MISSING_FILE, "red", "green", "blue"]


def test_numbers_of_two_files_of_a_table_are_not_each_other_s(tmp_path, images):
    (images / "1.png").write_bytes(picture("red"))
    (tmp_path / "tables").mkdir()
    for name in ("cats", "dogs"):
        write_rows(tmp_path / f"tables/{name}.jsonl", [("1", name)], ("id", "caption"))
    assert found(read(tmp_path / "tables", images)) == [MISSING_FILE] * 2
    assert found(read(tmp_path / "tables/cats.jsonl", images)) == ["red"]


@pytest.mark.parametrize("has_tar", [False, True])
def test_a_file_in_a_named_folder_is_not_one_in_another(tmp_path, has_tar):
    folder = folder_of(tmp_path / "images", cats__1="red", dogs__2="blue")
    if has_tar:
        write_shard(folder / "rest.tar", [("9", "green", "", "nine")])
    rows = [("dogs/1.png", "a"), ("/old/dogs/2.png", "b"), ("9.png", "c")]
    source = read(write_rows(tmp_path / "t.csv", rows, ("file_name", "text")), folder)
    assert found(source) == [MISSING_FILE, "blue", "green" if has_tar else MISSING_FILE]


def test_each_row_is_matched_in_every_way_that_its_own_values_allow(tmp_path):
    folder = folder_of(tmp_path / "images", p1="red", p2="green", p3="blue", x__p4="red")
    rows = [
        {"path": "/mnt/old/p1.png", "url": "http://x/p1.png", "id": "a", "text": "t"},
        {"path": None, "url": "http://x/p2.png", "id": "b", "text": "t"},
        {"path": "DSC_03.png", "url": "http://x/7", "id": "p3", "text": "t"},
        {"path": "http://x/p4.png", "url": None, "id": None, "text": "t"},
    ]
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    source = read(tmp_path / "t.jsonl", folder)
    assert found(source) == ["red", "green", "blue", "red"]
    assert source.notes == [
        "pictures matched by the end of their path: 1, such as t.jsonl:1",
        "pictures matched by the last part of their address: 2, such as t.jsonl:2",
        "pictures matched by an identifier as file name: 1, such as t.jsonl:3",
    ]


def test_the_photographer_s_name_does_not_hide_the_noted_address(tmp_path):
    folder = tmp_path / "images/00000"
    folder.mkdir(parents=True)
    for number, colour in enumerate(("red", "blue")):
        (folder / f"{number:09}.png").write_bytes(picture(colour))
        (folder / f"{number:09}.json").write_text(f'{{"url": "http://x/{number}.png"}}')
    rows = [("http://x/1.png", "t", "DSC_1.PNG"), ("http://x/0.png", "t", "DSC_0.PNG")]
    table = write_rows(tmp_path / "t.csv", rows, ("address", "caption", "filename"))
    assert found(read(table, tmp_path / "images", url_column="address")) == ["blue", "red"]
    assert found(read(table, tmp_path / "images")) == [MISSING_FILE] * 2
    table = write_rows(tmp_path / "t.csv", rows, ("image", "caption", "filename"))
    source = read(table, tmp_path / "images", image_column="image")
    assert found(source) == ["blue", "red"]
    assert source.notes == []


def test_a_column_of_urls_may_name_files(tmp_path):
    folder = folder_of(tmp_path / "images", cats__1="red", dogs__1="blue")
    rows = [("dogs/1.png", "a"), ("cats/1.png", "b")]
    assert found(read(write_rows(tmp_path / "t.csv", rows), folder)) == ["blue", "red"]


def test_rows_of_another_split_keep_their_pictures(tmp_path):
    folder = folder_of(tmp_path / "images", train__2="red", val__1="blue")
    rows = [("http://x/1.png", "a"), ("http://x/2.png", "b")]
    train = write_rows(tmp_path / "train.csv", rows)
    assert found(read(train, folder)) == ["blue", "red"]  # nobody says that 1.png is another's
    val = write_rows(tmp_path / "val.csv", [("http://y/1.png", "c")])
    source = read(train, folder)
    assert found(source) == [MISSING_FILE, "red"]
    assert any("table beside dataset.path names the same file" in note for note in source.notes)
    val.write_text("another,table\n1,2\n")
    assert found(read(train, folder)) == ["blue", "red"]
    write_rows(tmp_path / "val.csv", rows)  # another version of the same table
    assert found(read(train, folder)) == ["blue", "red"]
    rows = [("http://x/1.png", "a", "train"), ("http://y/1.png", "c", "val")]
    table = write_rows(tmp_path / "all.tsv", rows, ("url", "text", "split"))
    assert found(read(table, folder, leave_out={"split": "val"})) == [MISSING_FILE]


def test_a_relative_path_means_another_picture_in_another_table(tmp_path):
    folder = folder_of(tmp_path / "images", train__1="red")
    columns = ("file_name", "text")
    write_rows(tmp_path / "train.csv", [("1.png", "red"), ("1.png", "a red one")], columns)
    assert found(read(tmp_path / "train.csv", folder)) == ["red", "red"]
    val = write_rows(tmp_path / "val.csv", [("1.png", "blue")], columns)
    source = read(val, folder)
    assert found(source) == [MISSING_FILE]
    assert any("table beside dataset.path names the same file" in note for note in source.notes)
    assert found(read(tmp_path / "*.csv", folder)) == [MISSING_FILE] * 3
    for table in ("train.csv", "val.csv"):  # an absolute path means the same everywhere
        write_rows(tmp_path / table, [("/old/train/1.png", "red")], columns)
    assert found(read(tmp_path / "*.csv", folder)) == ["red", "red"]


def test_a_picture_that_is_a_link_out_of_its_tar_is_called_one(tmp_path):
    (tmp_path / "images").mkdir()
    with tarfile.open(tmp_path / "images/0.tar", "w") as tar:
        link = tarfile.TarInfo("1.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/1.png"
        tar.addfile(link)
    source = read(write_rows(tmp_path / "t.csv", [("http://x/1.png", "a")]), tmp_path / "images")
    assert found(source) == ["a link in a tar, to a file that is not in it"]


def test_names_meet_in_any_normalisation_and_in_any_case_that_is_unique(tmp_path):
    composed, decomposed = "caf\u00e9.png", "cafe\u0301.png"
    folder = tmp_path / "images"
    folder.mkdir()
    (folder / decomposed).write_bytes(picture("red"))
    (folder / "IMG_1.PNG").write_bytes(picture("blue"))
    for name in ("x.png", "X.png"):
        (folder / name).write_bytes(picture("green"))
    rows = [(name, "t") for name in (composed, "img_1.png", "x.PNG", "X.png")]
    source = read(write_rows(tmp_path / "t.csv", rows, ("file_name", "text")), folder)
    assert found(source) == ["red", "blue", MISSING_FILE, "green"]
    note = "pictures matched by the end of their path in another spelling: 2, such as t.csv:2"
    assert note in source.notes


def test_parts_of_a_data_set_find_the_same_pictures(tmp_path):
    names = {f"d{number % 3}__{number}": "red" for number in range(40)}
    folder = folder_of(tmp_path / "images", **names)
    rows = [(f"/old/{name.replace('__', '/')}.png", f"t{name}") for name in names]
    rows += [("/new/d0/0.png", "rival")]
    table = write_rows(tmp_path / "t.csv", rows, ("path", "text"))
    whole = {c.key: c.location for c in listed(read(table, folder))}
    parts = [listed(read(table, folder, shard=f"{part}/3")) for part in range(3)]
    assert {c.key: c.location for part in parts for c in part} == whole
    assert sorted(whole.values()).count("") == 2  # the rivals
    assert [c.location for c in listed(read(table, folder, limit=3))] == [
        "",
        "d1/1.png",
        "d2/2.png",
    ]


def test_where_the_folder_is_read_only_the_index_is_kept_nowhere(tmp_path, images, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    source = read(write_rows(tmp_path / "t.csv"), images)
    assert found(source) == ["red", "blue"]
    assert not list(images.glob(".*"))
    assert any("dataset.index=FILE" in note for note in source.notes)
    listed(source)
    assert sum("dataset.index=FILE" in note for note in source.notes) == 1


def test_the_index_follows_the_folder_and_the_table(tmp_path, images):
    path = write_rows(tmp_path / "t.csv", [("http://x/red.png", "a"), ("http://x/new.png", "b")])
    index = tmp_path / "elsewhere/index"
    assert found(read(path, images, index=str(index))) == ["red", MISSING_FILE]
    before = index.stat().st_mtime_ns
    assert found(read(path, images, index=str(index))) == ["red", MISSING_FILE]
    assert index.stat().st_mtime_ns == before
    (images / "new.png").write_bytes(picture("blue"))
    assert found(read(path, images, index=str(index))) == ["red", "blue"]
    write_rows(path, [("http://x/red.png", "a"), ("http://y/red.png", "b")])
    assert found(read(path, images, index=str(index))) == [MISSING_FILE] * 2
    index.write_bytes(b"not sqlite" * 100)
    assert found(read(path, images, index=str(index))) == [MISSING_FILE] * 2
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"dataset\.index=FILE"):
        read(path, images, index=str(tmp_path / "file/index"))


def test_two_tables_of_one_folder_may_be_read_at_once(tmp_path, images):
    first = read(write_rows(tmp_path / "a.jsonl"), images)
    second = read(write_rows(tmp_path / "b.csv", ROWS[::-1]), images)  # replaces the index
    assert found(first) == ["red", "blue"]
    assert found(second) == ["blue", "red"]


def test_a_table_that_changes_during_a_command_stops_it(tmp_path, images):
    path = write_rows(tmp_path / "t.csv")
    source = read(path, images)
    assert found(source) == ["red", "blue"]
    write_rows(path, [*ROWS[::-1], ROWS[0]])
    with pytest.raises(UserError, match="has changed"):
        listed(source)


def test_real_shard_gives_every_row_its_own_picture(tmp_path, shared):
    folder = shared / "cc12m_wds"
    with tarfile.open(folder / "cc12m-train-0000.tar") as tar:
        content = {m.name: tar.extractfile(m).read() for m in tar.getmembers() if m.isfile()}
    records = [json.loads(data) for name, data in content.items() if name.endswith(".json")]
    lines = [f"{record['url']}\t{record['caption']}" for record in reversed(records)]
    (tmp_path / "cc12m.tsv").write_text("\n".join(lines))
    source = read(
        *(tmp_path / "cc12m.tsv", folder),
        columns=["url", "caption"],
        quotes=False,
        index=str(tmp_path / "index"),
    )
    for candidate, record in zip(listed(source), reversed(records), strict=True):
        assert source.load(candidate.location) == content[f"{record['key']}.jpg"]
    assert len(records) == 32
    assert source.notes == []


def test_bz2_is_read(tmp_path, images):
    (tmp_path / "t.tsv.bz2").write_bytes(bz2.compress(b"url\ttext\nhttp://x/red.png\tt\n"))
    assert found(read(tmp_path, images / ".")) == ["red"]


@pytest.mark.parametrize(
    ("key", "value"), [("columns", ["url", "caption"]), ("encoding", "cp1252"), ("quotes", False)]
)
def test_a_key_of_text_is_refused_for_parquet(tmp_path, key, value):
    pd.DataFrame({"url": ["https://h/a.jpg"], "caption": ["a"]}).to_parquet(tmp_path / "t.parquet")
    config = TableConfig(
        name="t",
        reader="table",
        path=str(tmp_path / "t.parquet"),
        images_dir=str(tmp_path),
        **{key: value},
    )
    with pytest.raises(
        UserError, match=rf"dataset\.{key} is about tables of text.*dataset\.{key}="
    ):
        readers.read(config)
