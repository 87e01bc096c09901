"""Folders: caption files beside images, and metadata tables."""

import json
import os
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from curate import readers
from curate.measures.decode import probe
from curate.measures.unreadable import UnreadableImage
from curate.readers.folder import FolderConfig
from curate.run.schema import UserError


def candidates_of(source):
    return list(source.candidates())


def folder(root):
    return readers.read(FolderConfig(name="mine", reader="folder", root=str(root)))


def test_captions_are_paired_by_stem(tmp_path):
    red = Image.new("RGB", (4, 4), "red")
    for name in ("a.jpg", "b.PNG", "c.webp", "d.bmp", "e.gif", "f.tif", "sub/a.jpg", ".hidden.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        red.save(tmp_path / name)
    (tmp_path / "a.txt").write_text("first line \nsecond line")
    (tmp_path / "b.caption").write_bytes(b"\xef\xbb\xbfwith a mark")
    (tmp_path / "c.txt").write_text("")
    (tmp_path / "notes.txt").write_text("belongs to no image")
    found = {c.columns["file_name"]: c.captions for c in candidates_of(folder(tmp_path))}
    assert found == {
        "a.jpg": ("first line",),
        "b.PNG": ("with a mark",),
        "c.webp": ("",),
        "d.bmp": (),
        "e.gif": (),
        "f.tif": (),
        "sub/a.jpg": (),
    }


def test_what_is_left_out_of_a_folder_is_said(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    Image.new("RGB", (4, 4)).save(tmp_path / "b.png")
    (tmp_path / "a.txt").write_bytes("ünï\r\nmore".encode("utf-16"))
    (tmp_path / "b.txt").write_bytes(b"caf\xe9")
    (tmp_path / "orphan.txt").write_text("belongs to no image")
    (tmp_path / "c.psd").write_text("")
    Image.new("RGB", (4, 4)).save(tmp_path / "l.png")
    (tmp_path / "l.txt").symlink_to("l.txt")  # a loop
    (tmp_path / "more").symlink_to(tmp_path, target_is_directory=True)
    listing = folder(tmp_path)
    assert [c.captions for c in candidates_of(listing)] == [("ünï",), ("caf\ufffd",), ()]
    orphan, other, cut, garbled, closed, linked = listing.notes
    assert "more" in linked
    assert "l.txt" in closed
    assert "orphan.txt" in orphan
    assert ".psd" in other
    assert "a.txt" in cut
    assert "b.txt" in garbled


def test_kinds_of_other_files_are_told_in_the_order_of_their_paths(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    for name in ("a.md", "b.log", "c.yaml", "d.doc", "e.rst"):
        (tmp_path / name).write_text("")
    (note,) = folder(tmp_path).notes
    assert note.startswith("files of other types (.md, .log, .yaml, .doc, .rst): 5, such as a.md")


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_rows_of_one_image_are_its_captions(tmp_path, suffix):
    for name in ("a.png", "b.png", "c.png"):
        Image.new("RGB", (4, 4)).save(tmp_path / name)
    rows = [("a.png", "one", "CC0"), ("b.png", "two", "BY"), ("./a.png", "three", "BY")]
    rows.append(("a.png", "one", "CC0"))
    if suffix == "csv":
        text = "\n".join(["file_name,text,licence", *map(",".join, rows)])
    else:
        names = ("file_name", "text", "licence")
        text = "\n".join(json.dumps(dict(zip(names, row, strict=True))) for row in rows)
    (tmp_path / f"metadata.{suffix}").write_text(text)
    listing = folder(tmp_path)
    assert [c.captions for c in candidates_of(listing)] == [("one", "three"), ("two",)]
    assert candidates_of(listing)[0].columns["licence"] == "CC0"
    assert listing.total == 2
    differing, repeated, unnamed = listing.notes
    assert "a.png" in differing
    assert repeated == "images with a record that repeats an earlier one: 1, such as a.png"
    assert unnamed == f"images not named in metadata.{suffix}: 1, such as c.png"


def test_a_table_without_rows_names_no_images(tmp_path):
    (tmp_path / "metadata.csv").write_text("file_name,text\n")
    with pytest.raises(UserError, match=r"metadata\.csv names no images"):
        folder(tmp_path)


def test_equal_stems_keep_different_keys(tmp_path):
    for name in ("a.jpg", "a.png", "a-png.jpg", "a.jpg.webp"):  # the last as web servers keep them
        Image.new("RGB", (4, 4)).save(tmp_path / name)
    assert len({c.key for c in candidates_of(folder(tmp_path))}) == 4


def test_a_name_that_no_file_can_have_is_a_missing_file(tmp_path):
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "a\\u0000.png", "text": "a"}\n')
    source = folder(tmp_path)
    [candidate] = candidates_of(source)
    with pytest.raises(UnreadableImage, match="missing file"):
        source.load(candidate.location)


def test_splits_have_tables_of_their_own(tmp_path):
    """Hugging Face's imagefolder with ``train/`` and ``test/``."""
    for side in ("train", "test", "more", "train/deep"):
        (tmp_path / side).mkdir()
        Image.new("RGB", (4, 4)).save(tmp_path / side / "0.png")
    (tmp_path / "train/metadata.csv").write_text("file_name,text\n0.png,a cat\ndeep/0.png,deep\n")
    (tmp_path / "test/metadata.jsonl").write_text('{"file_name": "0.png", "text": "a dog"}\n')
    (tmp_path / "test/metadata.parquet").write_text("stands back")
    (tmp_path / "train/deep/metadata.csv").write_text("file_name,text\n0.png,not asked\n")
    (tmp_path / "more/0.txt").write_text("by its stem")
    listing = folder(tmp_path)
    assert {c.location: c.captions for c in candidates_of(listing)} == {
        "more/0.png": ("by its stem",),
        "test/0.png": ("a dog",),
        "train/0.png": ("a cat",),
        "train/deep/0.png": ("deep",),
    }
    assert any("such as test/metadata.parquet" in note for note in listing.notes)


def test_a_name_that_is_not_text_is_left_out_and_said(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    (tmp_path / "a.png").with_suffix(".txt").write_text("a cat")
    odd = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.png")
    Image.new("RGB", (4, 4)).save(odd)
    Path(odd).with_suffix(".xyz").write_text("")
    listing = folder(tmp_path)
    assert [c.location for c in candidates_of(listing)] == ["a.png"]
    assert any(
        "names are not UTF-8" in note and "1, such as caf?.png" in note for note in listing.notes
    )
    assert all(note.encode() for note in listing.notes)


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_metadata_tables(tmp_path, kind):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    columns = {
        "file_name": ["a.png", "gone.png"],
        "text": ["a cat", None],
        "licence": ["CC0", "BY"],
    }
    table, path = pd.DataFrame(columns), tmp_path / f"metadata.{kind}"
    if kind == "csv":
        table.to_csv(path, index=False)
    elif kind == "jsonl":
        table.to_json(path, orient="records", lines=True)
    else:
        table.to_parquet(path)
    source = folder(tmp_path)
    here, gone = source.candidates()
    assert (here.captions, here.columns["licence"]) == (("a cat",), "CC0")
    assert probe(source.load(here.location)) == (4, 4, "PNG")
    assert gone.captions == ()
    with pytest.raises(UnreadableImage, match="missing file"):
        source.load(gone.location)


WORDS = ["None", "NA", "null", "nan", "7", "1e3", "True", "2020-01-01"]


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_captions_that_look_like_something_else_stay_as_they_are(tmp_path, kind):
    rows = [{"file_name": f"{i}.png", "text": word} for i, word in enumerate(WORDS)]
    if kind == "csv":
        lines = ["file_name,text", *(f"{row['file_name']},{row['text']}" for row in rows)]
        (tmp_path / "metadata.csv").write_text("\n".join(lines))
    elif kind == "jsonl":
        (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    else:
        pd.DataFrame(rows).to_parquet(tmp_path / "metadata.parquet")
    assert [c.captions for c in candidates_of(folder(tmp_path))] == [(word,) for word in WORDS]


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_numbers_are_captions_and_lists_are_several(tmp_path, kind):
    captions = {"jsonl": [7, None, ["a", "b"]], "parquet": [7, 8, 9]}[kind]
    rows = [{"file_name": f"{i}.png", "text": text} for i, text in enumerate(captions)]
    if kind == "jsonl":
        (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
        expected = [("7",), (), ("a", "b")]
    else:
        pd.DataFrame(rows).to_parquet(tmp_path / "metadata.parquet")
        expected = [("7",), ("8",), ("9",)]
    assert [c.captions for c in candidates_of(folder(tmp_path))] == expected


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("metadata.csv", "file_name,text\na.png,a cat, and a dog\n", "quote"),
        ("metadata.jsonl", '{"file_name": "a.png", "text": "a"}\n{', "metadata.jsonl"),
        ("metadata.parquet", "no table", "metadata.parquet"),
        ("metadata.jsonl", '{"file_name": "a.png", "text": "a"}\n{"text": "b"}', "file_name"),
    ],
)
def test_a_broken_metadata_table_is_named(tmp_path, name, content, says):
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=says):
        folder(tmp_path)


def test_metadata_must_name_its_columns_and_stay_inside(tmp_path):
    (tmp_path / "metadata.csv").write_text("file,text\na.png,a cat\n")
    with pytest.raises(UserError, match="file_name"):
        folder(tmp_path)
    (tmp_path / "metadata.csv").write_text("file_name,text\n../a.png,a cat\n")
    with pytest.raises(UserError, match="outside the table"):
        folder(tmp_path)


def test_a_broken_line_is_named(tmp_path):
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "a.png", "text": "a"}\n{broken\n')
    with pytest.raises(UserError, match=r"cannot be read \(line 2: .*\); repair it$"):
        folder(tmp_path)


def test_folders_may_be_parted_as_on_windows(tmp_path):
    (tmp_path / "sub").mkdir()
    for name in ("sub/a.png", "b\\c.png"):
        Image.new("RGB", (4, 4)).save(tmp_path / name)
    (tmp_path / "metadata.csv").write_text("file_name,text\nsub\\a.png,a cat\nb\\c.png,a dog\n")
    assert sorted(c.location for c in folder(tmp_path).candidates()) == ["b\\c.png", "sub/a.png"]


def test_white_space_around_a_name_belongs_to_it_only_where_such_a_file_is(tmp_path):
    (tmp_path / "sub").mkdir()
    for name in ("sub/a.png", " b.png"):
        Image.new("RGB", (4, 4)).save(tmp_path / name)
    (tmp_path / "metadata.csv").write_text('file_name,text\n" sub\\a.png ",a cat\n" b.png",a dog\n')
    assert sorted(c.location for c in folder(tmp_path).candidates()) == [" b.png", "sub/a.png"]
    (tmp_path / "metadata.csv").write_text('file_name,text\n" ",a cat\n')
    with pytest.raises(UserError, match="record 1 has no file_name"):
        folder(tmp_path)


def test_metadata_columns_never_hide_the_ledgers_own(tmp_path):
    (tmp_path / "metadata.csv").write_text("file_name,text,split\na.png,a cat,test\n")
    assert candidates_of(folder(tmp_path))[0].columns["source_split"] == "test"


def test_metadata_columns_never_hide_each_other(tmp_path):
    records = [
        {
            "file_name": "a.png",
            "text": "a",
            "source_width": "theirs",
            "width": "1200",
            "raw": ["x"],
        },
        {"file_name": "b.png", "text": "b", "width": 7},
    ]
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, records)))
    for name in "ab":
        Image.new("RGB", (4, 4)).save(tmp_path / f"{name}.png")
    assert [c.columns for c in candidates_of(folder(tmp_path))] == [
        {
            "file_name": "a.png",
            "source_width": "theirs",
            "source_source_width": "1200",
            "raw": '["x"]',
        },
        {"file_name": "b.png", "source_width": "", "source_source_width": "7", "raw": ""},
    ]


def test_an_empty_folder_is_an_error(tmp_path):
    with pytest.raises(UserError, match=f"{tmp_path} holds no images"):
        folder(tmp_path)


def test_a_changed_file_has_another_version(tmp_path):
    path = tmp_path / "a.png"
    Image.new("RGB", (4, 4)).save(path)
    before = candidates_of(folder(tmp_path))[0].version
    Image.new("RGB", (9, 4)).save(path)
    assert candidates_of(folder(tmp_path))[0].version != before


def test_kohyas_metadata(tmp_path):
    for name in ("a.png", "sub/b.png", "sub/e.png", "c.webp", "d.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (4, 4)).save(tmp_path / name)
    content = {
        "a": {"caption": "a cat", "tags": "cat, mat", "train_resolution": [64, 64]},
        "sub/b.png": {"tags": "dog"},
        "sub\\e": {"caption": "a cow"},
        f"{tmp_path}/c": {"caption": "a bird"},
        "gone": {"caption": "lost"},
        "d": {},
    }
    (tmp_path / "metadata.json").write_text(json.dumps(content))
    got = {c.columns["file_name"]: c.captions for c in folder(tmp_path).candidates()}
    assert got == {
        "a.png": ("a cat, cat, mat",),
        "sub/b.png": ("dog",),
        "sub/e.png": ("a cow",),
        "c.webp": ("a bird",),
        "gone": ("lost",),
        "d.png": (),
    }
    for broken in ("[1]", '{"a": "a cat"}', "{"):
        (tmp_path / "metadata.json").write_text(broken)
        with pytest.raises(UserError, match=r"metadata\.json"):
            folder(tmp_path)


@pytest.mark.parametrize(
    ("record", "names"),
    [
        ({"image_file_name": "a.png", "mask_file_name": "b.png"}, ["a.png"]),
        ({"photo_file_name": "b.png"}, ["b.png"]),
        ({"file_names": ["a.png", "b.png"]}, ["a.png", "b.png"]),
        ({"image_path": "{root}/b.png"}, ["b.png"]),
    ],
)
def test_other_names_of_the_file_column(tmp_path, record, names):
    for name in ("a.png", "b.png"):
        Image.new("RGB", (4, 4)).save(tmp_path / name)
    line = json.dumps({**record, "caption": "both"}).replace("{root}", str(tmp_path))
    (tmp_path / "metadata.jsonl").write_text(line)
    found = {c.location: c.captions for c in folder(tmp_path).candidates()}
    assert found == dict.fromkeys(names, ("both",))


def test_two_file_columns_are_not_guessed(tmp_path):
    (tmp_path / "metadata.jsonl").write_text(
        '{"left_file_name": "a.png", "right_file_name": "b.png", "text": "x"}'
    )
    with pytest.raises(UserError, match="needs the columns 'file_name'"):
        folder(tmp_path)


def test_metadata_of_a_spreadsheet_may_have_semicolons(make_pictures, tmp_path):
    folder = make_pictures(tmp_path / "p", 1)
    (folder / "0000.txt").unlink()
    (folder / "metadata.csv").write_text("file_name;text\n0000.png;a cat, small\n")
    [only] = readers.read(FolderConfig(name="p", reader="folder", root=str(folder))).candidates()
    assert only.captions == ("a cat, small",)
