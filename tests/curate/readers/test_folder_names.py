"""Folders whose files are named in ways that differ from their captions' and tables', and pictures without a suffix."""

import json
import unicodedata
import zipfile

import pytest
from PIL import Image

from curate import readers
from curate.readers.folder import FolderConfig
from curate.readers.folder.spelling import meet
from curate.run.schema import UserError

COMPOSED = unicodedata.normalize("NFC", "café")
DECOMPOSED = unicodedata.normalize("NFD", "café")


def folder(root):
    return readers.read(FolderConfig(name="mine", reader="folder", root=str(root)))


def captions_in(root):
    return {c.location: c.captions for c in folder(root).candidates()}


def save(root, *names, kind="PNG"):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(root / name, kind)


def write(root, **texts):
    for name, text in texts.items():
        (root / name.replace("__", ".")).write_text(text)


# ---- names that meet


def test_a_name_means_the_only_one_that_is_spelled_alike():
    assert meet([COMPOSED, "a\\b"], [DECOMPOSED, "a/b"]) == {COMPOSED: DECOMPOSED, "a\\b": "a/b"}
    assert meet(["A.JPG"], ["a.jpg"]) == {"A.JPG": "a.jpg"}
    assert meet(["A.JPG"], ["a.jpg", "A.jpg"]) == {}
    assert meet(["A.JPG", "A.jpg"], ["a.jpg"]) == {}
    assert meet(["A.jpg", "a.jpg"], ["a.jpg"]) == {"a.jpg": "a.jpg"}  # which is taken


def test_captions_meet_images_in_every_unicode_form_and_unique_case(tmp_path):
    save(tmp_path, f"{DECOMPOSED}.png", "IMG_1.PNG", "b.png", "B.png")
    write(tmp_path, **{f"{COMPOSED}.txt": "coffee", "img_1.txt": "one", "B.TXT": "large"})
    assert captions_in(tmp_path) == {
        f"{DECOMPOSED}.png": ("coffee",),
        "IMG_1.PNG": ("one",),
        "b.png": (),
        "B.png": ("large",),
    }
    (note,) = folder(tmp_path).notes
    assert note.startswith("caption files whose image has its name in another spelling: 2, such as")


@pytest.mark.parametrize("kind", ["jsonl", "json"])
def test_tables_meet_images_in_every_unicode_form_and_unique_case(tmp_path, kind):
    save(tmp_path, f"sub/{DECOMPOSED}.png", "IMG_1.PNG", "b.png", "B.png", "same.jpg", "same.png")
    names = {f"sub\\{COMPOSED}.png": "coffee", "img_1.png": "one", "b.PNG": "which?"}
    if kind == "json":
        names = {name.rpartition(".")[0]: text for name, text in names.items()} | {"same": "both?"}
        content = json.dumps({name: {"caption": text} for name, text in names.items()})
    else:
        rows = ({"file_name": name, "text": text} for name, text in names.items())
        content = "\n".join(map(json.dumps, rows))
    (tmp_path / f"metadata.{kind}").write_text(content)
    found = captions_in(tmp_path)
    assert found[f"sub/{DECOMPOSED}.png"] == ("coffee",)
    assert found["IMG_1.PNG"] == ("one",)
    assert ("which?",) not in [found.get(name) for name in ("B.png",)]
    assert found.keys().isdisjoint({"same.jpg", "same.png"})


def test_a_table_may_repeat_its_folders_name(tmp_path):
    save(tmp_path, "data/train/a.png", "data/train/b.png", "data/train/train/b.png")
    names = {"train/a.png": "a", "data/train/b.png": "outer", "train/b.png": "inner"}
    rows = [json.dumps({"file_name": name, "text": text}) for name, text in names.items()]
    (tmp_path / "data/train/metadata.jsonl").write_text("\n".join(rows))
    source = folder(tmp_path)
    assert captions_in(tmp_path) == {
        "data/train/a.png": ("a",),
        "data/train/b.png": ("outer",),
        "data/train/train/b.png": ("inner",),  # a file of this very name
    }
    assert any(
        "repeat the folder's own name" in note and "2, such as" in note for note in source.notes
    )


def test_two_names_of_one_image_do_not_both_count_without_the_folder(tmp_path):
    save(tmp_path, "train/a.png")
    names = {"train/a.png": "loose", "a.png": "exact"}
    rows = [json.dumps({"file_name": name, "text": text}) for name, text in names.items()]
    (tmp_path / "train/metadata.jsonl").write_text("\n".join(rows))
    assert captions_in(tmp_path) == {"train/a.png": ("exact",), "train/train/a.png": ("loose",)}


# ---- which caption file


def test_a_caption_file_may_have_the_images_whole_name(tmp_path):
    save(tmp_path, "a.png", "b.png", "c.png", "c.png.webp", "d.png", "d.jpg")
    write(tmp_path, a__png__txt="whole", b__png__caption="with caption", c__png__txt="by its stem")
    write(tmp_path, d__png__txt="png", d__jpg__txt="jpg")
    assert captions_in(tmp_path) == {
        "a.png": ("whole",),
        "b.png": ("with caption",),
        "c.png": (),
        "c.png.webp": ("by its stem",),
        "d.png": ("png",),
        "d.jpg": ("jpg",),
    }


def test_the_whole_name_of_one_image_counts_before_a_stem_that_several_have(tmp_path):
    save(tmp_path, "a.png", "a.jpg", "b.png")
    write(tmp_path, a__txt="both", a__png__txt="png", b__txt="stem", b__png__txt="left")
    assert captions_in(tmp_path) == {"a.png": ("png",), "a.jpg": ("both",), "b.png": ("stem",)}


def test_of_several_caption_files_the_first_that_says_something_counts(tmp_path):
    save(tmp_path, "a.png", "b.png", "c.png")
    write(tmp_path, a__txt="text", a__caption="left", a__png__txt="left")
    write(tmp_path, b__txt=" \n", b__caption="said", c__txt="", c__caption="")
    write(tmp_path, orphan__txt="no image")
    source = folder(tmp_path)
    found = {c.location: c.captions for c in source.candidates()}
    assert found == {"a.png": ("text",), "b.png": ("said",), "c.png": ("",)}
    orphan, beside = source.notes
    assert orphan == "caption files without an image: 1, such as orphan.txt"
    assert beside.startswith("caption files beside another one of the same image, which is used: 4")


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_the_first_line_that_is_not_empty_counts(tmp_path, end):
    save(tmp_path, "a.png", "b.png")
    (tmp_path / "a.txt").write_bytes(f"{end} \t{end}a cat{end}{end}".encode())
    (tmp_path / "b.txt").write_bytes(f"a dog{end}{end}more{end}".encode())
    source = folder(tmp_path)
    assert [c.captions for c in source.candidates()] == [("a cat",), ("a dog",)]
    assert source.notes == [
        "caption files with several lines, of which only the first is used: 1, such as b.txt"
    ]


# ---- files that are not what their names say, or are missing


def test_a_picture_without_a_suffix_is_known_by_its_bytes(tmp_path):
    save(tmp_path, "0001", "0002.bin", "alone", "v1.5", kind="JPEG")
    save(tmp_path, "both.img", "both.bak", "taken.png", "taken.old")
    write(tmp_path, **{"0001.txt": "one", "0002.txt": "two", "v1.5.txt": "dot"})
    write(tmp_path, both__txt="whose?", taken__txt="a suffix", text__txt="not one", text="words")
    assert captions_in(tmp_path) == {
        "0001": ("one",),
        "0002.bin": ("two",),
        "v1.5": ("dot",),
        "taken.png": ("a suffix",),
    }


def test_jfif_and_apng_are_pictures(tmp_path):
    save(tmp_path, "a.jfif", kind="JPEG")
    save(tmp_path, "b.apng", "c.heic")
    assert set(captions_in(tmp_path)) == {"a.jfif", "b.apng", "c.heic"}


def test_pictures_that_are_still_in_an_archive(tmp_path):
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:
        archive.writestr("0.png", b"")
    with pytest.raises(UserError, match=r"holds no images; archives.*unpack them.*images\.zip"):
        folder(tmp_path)
    rows = '{"file_name": "0.png", "text": "a"}\n{"file_name": "1.png", "text": "b"}'
    (tmp_path / "metadata.jsonl").write_text(rows)
    with pytest.raises(UserError, match=r"none of the 2 images .* images\.zip is: .*Unpack it"):
        folder(tmp_path)
    save(tmp_path, "0.png")
    (note,) = folder(tmp_path).notes
    assert note.startswith("archives, whose content is not read")
