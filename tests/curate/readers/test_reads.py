"""Which files a reader says that it opens: those that reading opens, and no other."""

import builtins
import io
import os
from pathlib import Path

import pytest

from curate import readers
from curate.readers.folder import FolderConfig
from curate.readers.shards import ShardsConfig
from curate.readers.tables import TableConfig

FOLDER = {
    "a.png": True,
    "a.txt": True,
    "b.JPG": True,
    "b.JPG.caption": True,
    "b.caption": True,
    "c.txt": False,
    "Thumbs.db": False,
    "desktop.ini": False,
    ".DS_Store": False,
    ".hidden/d.png": False,
    "deep/readme.txt": False,
    "deep/e.webp": True,
    "table/metadata.csv": True,
    "table/f.png": True,
    "table/f.txt": False,
    "table/g.png": False,
    "table/below/h.png": False,
}
METADATA = "file_name,text\nf.png,a picture\n"


def write(root, names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(METADATA if name.endswith("metadata.csv") else name)


def said(config, root):
    reads = readers.reads(config)
    return {path.relative_to(root).as_posix(): reads(str(path)) for path in root.rglob("*") if path.is_file()}  # fmt: skip


@pytest.mark.parametrize("spelled", ["pictures", "./deep/../pictures", None])
def test_a_folder_s_pictures_their_captions_and_tables(tmp_path, monkeypatch, spelled):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "deep").mkdir()
    root = tmp_path / "pictures"
    write(root, FOLDER)
    config = FolderConfig("folder", "folder", root=spelled or str(root))
    assert said(config, root) == FOLDER


def test_it_is_what_reading_opens_or_lists(tmp_path, monkeypatch):
    """By an independent count: the files that are opened, and the pictures that are listed."""
    write(tmp_path, FOLDER)
    config = FolderConfig("folder", "folder", root=str(tmp_path))
    opened, real = set(), io.open

    def watched(file, *arguments, **options):
        opened.add(os.fspath(file) if not isinstance(file, int) else "")
        return real(file, *arguments, **options)

    monkeypatch.setattr(io, "open", watched)
    monkeypatch.setattr(builtins, "open", watched)
    source = readers.read(config)
    monkeypatch.undo()
    used = {os.path.relpath(path, tmp_path) for path in opened if path.startswith(str(tmp_path))}
    used |= {candidate.location for candidate in source.candidates()}
    assert used == {name for name, is_read in FOLDER.items() if is_read}


def test_shards_and_the_lists_beside_them(tmp_path):
    names = {
        "0.tar": True,
        "0.parquet": True,
        "0_stats.json": False,
        "1.tgz": True,
        "Thumbs.db": False,
    }
    write(tmp_path, names)
    assert said(ShardsConfig("x", "shards", path=str(tmp_path)), tmp_path) == names
    one = dict.fromkeys(names, False) | {"0.tar": True, "0.parquet": True}
    assert said(ShardsConfig("x", "shards", path=str(tmp_path / "0.tar")), tmp_path) == one


def test_tables_and_the_pictures_of_their_folder(tmp_path):
    names = {
        "t.csv": True,
        "beside.csv": True,  # its rows keep their pictures
        "notes.txt": False,
        "images/a.jpg": True,
        "images/a.json": True,
        "images/Thumbs.db": False,
        "images/.curate-index.sqlite": False,
    }
    write(tmp_path, names)
    images = str(tmp_path / "images")
    config = TableConfig("x", "table", path=str(tmp_path / "t.csv"), images_dir=images)
    assert said(config, tmp_path) == names


def test_a_reader_that_does_not_say_may_open_any():
    assert readers.reads(readers.DatasetConfig("x", "hub"))(str(Path("/any/file")))
