"""Caption files and metadata tables in other encodings than UTF-8, and tables with two columns of one name."""

import json

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from curate import readers
from curate.readers.folder import FolderConfig
from curate.run.schema import UserError

CAPTIONS = {
    "cp1252": [
        "ein schöner Tag",
        "un café à côté",
        "Mädchen auf der Straße",
        "Bäume",
        "größere Löwen",
    ],
    "shift_jis": ["猫がいる", "テーブルの上の赤いもの", "東京タワーの夜景", "赤い花", "白い雲"],
    "gbk": ["只有中文的说明", "桌子上的红色东西", "一只猫坐在垫子上", "天上的白云", "雨中的街道"],
}


def folder(root, **options):
    return readers.read(FolderConfig(name="mine", reader="folder", root=str(root), **options))


def captions_of(source):
    return [caption for candidate in source.candidates() for caption in candidate.captions]


def save(root, count):
    for number in range(count):
        Image.new("RGB", (4, 4)).save(root / f"{number}.png")


@pytest.mark.parametrize("encoding", CAPTIONS)
def test_caption_files_of_one_encoding_are_read_as_written(tmp_path, encoding):
    save(tmp_path, 5)
    for number, caption in enumerate(CAPTIONS[encoding]):
        (tmp_path / f"{number}.txt").write_bytes(caption.encode(encoding))
    source = folder(tmp_path)
    assert captions_of(source) == CAPTIONS[encoding]
    (note,) = source.notes
    assert note.startswith("caption files read as ")
    assert "5, such as 0.txt" in note


def test_caption_files_with_marks_are_read_as_written(tmp_path):
    encodings = ["utf-8-sig", "utf-16", "utf-16-be", "utf-32"]
    save(tmp_path, len(encodings))
    for number, encoding in enumerate(encodings):
        mark = "\ufeff" if encoding == "utf-16-be" else ""
        text = f"{mark}ünï \ufeffcaption\r\n\ufeffmore"
        (tmp_path / f"{number}.txt").write_bytes(text.encode(encoding))
    assert captions_of(folder(tmp_path)) == ["ünï caption"] * len(encodings)


def test_caption_files_in_no_certain_encoding_are_noted_until_it_is_named(tmp_path):
    save(tmp_path, 1)
    (tmp_path / "0.txt").write_bytes("кот".encode("koi8-r"))
    source = folder(tmp_path)
    assert "\ufffd" in captions_of(source)[0]
    (note,) = source.notes
    assert "in no encoding that is certain" in note
    assert "dataset.encoding=NAME" in note
    assert captions_of(folder(tmp_path, encoding="koi8-r")) == ["кот"]
    with pytest.raises(UserError, match=r"dataset\.encoding=no-such"):
        folder(tmp_path, encoding="no-such")


@pytest.mark.parametrize("encoding", [*CAPTIONS, "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("kind", ["csv", "jsonl", "json"])
def test_metadata_tables_are_read_as_written(tmp_path, kind, encoding):
    save(tmp_path, 5)
    captions = CAPTIONS.get(encoding, CAPTIONS["cp1252"])
    rows = [{"file_name": f"{n}.png", "text": text} for n, text in enumerate(captions)]
    if kind == "csv":
        text = "\r\n".join(["file_name,text", *(",".join(row.values()) for row in rows)])
    elif kind == "jsonl":
        text = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    else:
        text = json.dumps(rows, ensure_ascii=False, indent=1)
    (tmp_path / f"metadata.{kind}").write_bytes(text.encode(encoding))
    source = folder(tmp_path)
    assert captions_of(source) == captions
    assert len(source.notes) == (encoding in CAPTIONS)


def test_a_table_in_no_certain_encoding_is_refused_until_it_is_named(tmp_path):
    save(tmp_path, 1)
    (tmp_path / "metadata.csv").write_bytes("file_name,text\n0.png,un café\n".encode("cp1252"))
    with pytest.raises(UserError, match=r"not UTF-8.*dataset\.encoding=NAME"):
        folder(tmp_path)
    assert captions_of(folder(tmp_path, encoding="cp1252")) == ["un café"]


def test_joined_tables_have_marks_in_the_middle(tmp_path):
    save(tmp_path, 2)
    rows = [f'{{"file_name": "{n}.png", "text": "number {n}"}}\n' for n in range(2)]
    (tmp_path / "metadata.jsonl").write_bytes("".join(f"\ufeff{row}" for row in rows).encode())
    assert captions_of(folder(tmp_path)) == ["number 0", "number 1"]


def test_excels_unicode_text_has_tabs(tmp_path):
    save(tmp_path, 1)
    (tmp_path / "metadata.csv").write_bytes(
        "file_name\ttext\r\n0.png\ta cat, grün\r\n".encode("utf-16")
    )
    assert captions_of(folder(tmp_path)) == ["a cat, grün"]


@pytest.mark.parametrize("kind", ["csv", "jsonl", "json", "kohya", "parquet"])
def test_two_columns_of_one_name_are_refused(tmp_path, kind):
    save(tmp_path, 1)
    record = '{"file_name": "0.png", "text": "right", "text": "unrelated"}'
    path = tmp_path / f"metadata.{kind.replace('kohya', 'json')}"
    if kind == "parquet":
        columns = [pa.array([value]) for value in ("0.png", "right", "unrelated")]
        pq.write_table(pa.table(columns, names=["file_name", "text", "text"]), path)
    else:
        content = {
            "csv": "file_name,text,text\n0.png,right,unrelated\n",
            "jsonl": record,
            "json": f"[{record}]",
            "kohya": '{"0": {"caption": "right"}, "0": {"caption": "unrelated"}}',
        }
        path.write_text(content[kind])
    with pytest.raises(
        UserError, match=r"two (columns of one name: text|fields are called '(text|0)')"
    ):
        folder(tmp_path)


def test_columns_without_a_name_are_no_columns_of_one_name(tmp_path):
    save(tmp_path, 1)
    (tmp_path / "metadata.csv").write_text("file_name,text,,\n0.png,a cat,,\n")
    assert captions_of(folder(tmp_path)) == ["a cat"]


def test_a_caption_may_be_longer_than_csv_takes_by_default(tmp_path):
    save(tmp_path, 1)
    (tmp_path / "metadata.csv").write_text(f"file_name,text\n0.png,{'x' * 200_000}\n")
    assert captions_of(folder(tmp_path)) == ["x" * 200_000]


def test_pictures_in_other_columns_of_a_table_are_not_stored_as_text(tmp_path):
    save(tmp_path, 1)
    row = {"file_name": "0.png", "text": "a cat", "mask": {"bytes": b"\x89PNG", "path": "m.png"}}
    pd.DataFrame([{**row, "frames": [{"bytes": b"GIF", "path": None}]}]).to_parquet(
        tmp_path / "metadata.parquet"
    )
    (candidate,) = folder(tmp_path).candidates()
    assert not any(
        "PNG" in str(value) or "GIF" in str(value) for value in candidate.columns.values()
    )
