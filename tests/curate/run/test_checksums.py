"""``checksums.json``: what it covers, what it finds, and that damage never becomes right by listing it."""

import hashlib
import json

import pyarrow as pa
import pytest

from curate.run import checksums
from curate.run.parquet import checksum_in, write_table


@pytest.fixture
def folder(tmp_path):
    """A stage with a file of each kind."""
    for name, text in (
        ("config.yaml", "a: 1"),
        ("sub/deep/b.bin", "content"),
        ("metrics.jsonl", "one\n"),
        (".lock", ""),
        ("cache/latents", "large"),
        ("sub/.b.bin.12.part", "half"),
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "sub" / "best").symlink_to("deep")
    write_table(tmp_path / "t.parquet", pa.table({"a": [1]}))
    return tmp_path


def listed(folder):
    return json.loads((folder / "checksums.json").read_text())


def test_every_file_is_listed_but_locks_parts_and_caches(folder):
    checksums.write(folder)
    files = listed(folder)["files"]
    assert files.keys() == {"config.yaml", "sub/deep/b.bin", "metrics.jsonl", "t.parquet"}
    assert listed(folder)["links"] == {"sub/best": "deep"}
    digest = hashlib.sha256(b"content").hexdigest()
    assert files["sub/deep/b.bin"] == {"bytes": 7, "sha256": digest}
    assert files["t.parquet"]["sha256"] == checksum_in(folder / "t.parquet")
    assert list(checksums.problems(folder)) == []
    assert checksums.unlisted(folder) == []


def test_each_kind_of_damage_has_a_line(folder):
    checksums.write(folder)
    (folder / "config.yaml").write_text("a: 2")
    (folder / "sub/deep/b.bin").unlink()
    (folder / "sub/best").unlink()
    (folder / "sub/best").symlink_to("elsewhere")
    (folder / "metrics.jsonl").write_text("one\ntwo\n")  # more of it is no damage
    with (folder / "t.parquet").open("ab") as stream:
        stream.write(b"x")
    (folder / "new").write_text("")
    lines = "\n".join(checksums.problems(folder))
    for line in (
        "config.yaml: damaged",
        "sub/deep/b.bin: missing",
        "sub/best: points to",
        "t.parq",
    ):
        assert line in lines
    assert len(lines.splitlines()) == 4
    assert checksums.unlisted(folder) == ["new"]
    (folder / "metrics.jsonl").write_text("two\none\n")
    assert "metrics.jsonl: damaged" in "\n".join(checksums.problems(folder))
    assert checksums.damaged(folder, ("sub/", "config")) == ["config.yaml", "sub/deep/b.bin"]


def test_a_damaged_list_says_so(folder):
    checksums.write(folder)
    path = folder / "checksums.json"
    path.write_text(path.read_text().replace('"bytes": 7', '"bytes": 8'))
    [line] = checksums.problems(folder)
    assert line.startswith("checksums.json: damaged")
    assert checksums.damaged(folder) == ["checksums.json"]
    assert not checksums.is_intact(folder, "config.yaml")


def test_a_list_without_its_own_checksum_is_damaged(folder):
    """A flipped bit in the name of the key would make a list of it that nothing checks."""
    checksums.write(folder)
    path = folder / checksums.FILE
    path.write_text(path.read_text().replace('"checksum"', '"chekksum"'))
    assert checksums.read(folder) is None
    assert list(checksums.problems(folder)) == [
        "checksums.json: damaged, so the other files cannot be checked against it"
    ]


def test_an_update_hashes_what_changed_and_keeps_the_rest(folder):
    checksums.write(folder)
    (folder / "config.yaml").write_text("a: 2")  # damage, from here on
    with checksums.updated(folder, ("sub/",)):
        assert not (folder / "checksums.json").exists()
        (folder / "sub/deep/b.bin").write_text("another")
        (folder / "sub/new").write_text("new")
    assert checksums.damaged(folder) == ["config.yaml"]
    assert "sub/new" in listed(folder)["files"]


def test_an_update_that_fails_leaves_no_list(folder):
    checksums.write(folder)
    with pytest.raises(RuntimeError), checksums.updated(folder, ()):
        raise RuntimeError
    assert not (folder / "checksums.json").exists()


def test_hashes_that_are_known_are_not_computed_again(folder, monkeypatch):
    checksums.write(folder / "sub")
    monkeypatch.setattr(checksums, "sha256_of", lambda path: f"computed {path.name}")
    checksums.write(folder, known={"config.yaml": "known"})
    files = listed(folder)["files"]
    assert files["config.yaml"]["sha256"] == "known"
    assert files["sub/deep/b.bin"]["sha256"] == hashlib.sha256(b"content").hexdigest()
    assert files["sub/checksums.json"]["sha256"] == "computed checksums.json"
