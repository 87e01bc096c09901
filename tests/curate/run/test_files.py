"""A file exists only when it is complete."""

import errno
import hashlib
import io
import json
import os

import pytest

from curate.run.files import (
    HashingWriter,
    atomic_write,
    read_json,
    remove_parts,
    replace_folder,
    sha256_of,
    write_certified,
    write_json,
    write_text,
)


def test_writers_of_one_name_on_two_machines_share_no_temporary_file(tmp_path, monkeypatch):
    path = tmp_path / "a.bin"
    monkeypatch.setattr(os, "getpid", lambda: 7)  # as the first process of each container
    with atomic_write(path) as one:
        one.write(b"first")
        with atomic_write(path, sync=False) as other:
            other.write(b"second")
        parts = [each.name for each in tmp_path.glob(".*.part")]
        assert path.read_bytes() == b"second"
        assert len(parts) == 1
        assert all(len(name) < 64 for name in parts)
    assert path.read_bytes() == b"first"
    assert [each.name for each in tmp_path.iterdir()] == ["a.bin"]


def test_a_failing_writer_leaves_the_old_file_and_no_part(tmp_path):
    path = tmp_path / "deep" / "a.bin"
    write_text(path, "old")

    def failing():
        with atomic_write(path) as stream:
            stream.write(b"half")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        failing()
    assert path.read_text() == "old"
    assert [p.name for p in path.parent.iterdir()] == ["a.bin"]


def test_json_is_sorted_and_refuses_nan(tmp_path):
    write_json(tmp_path / "a.json", {"b": 1, "a": [0.5]})
    assert (tmp_path / "a.json").read_text() == json.dumps({"a": [0.5], "b": 1}, indent=2) + "\n"
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "b.json", {"a": float("nan")})
    assert not (tmp_path / "b.json").exists()


@pytest.mark.parametrize("content", [b'{"a": 1', b"", b"\xff\xfe", b"[1]", b"[" * 200_000])
def test_damaged_json_is_none(tmp_path, content):
    path = tmp_path / "a.json"
    assert read_json(path) is None
    path.write_bytes(content)
    assert read_json(path) is None
    write_json(path, {"a": 1})
    assert read_json(path) == {"a": 1}


def test_certified_json_is_what_was_written_or_none(tmp_path):
    path, content = tmp_path / "a.json", {"list": [1, 0.1, "ü"], "deep": {"10": None, "9": True}}
    write_certified(path, content | {"deep": {10: None, 9: True}})
    assert read_json(path) == content
    write_certified(path, content)
    whole = path.read_bytes()
    write_certified(path, json.loads(whole))  # the old checksum is not part of the new one
    assert path.read_bytes() == whole
    for bit in range(8 * len(whole)):
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        found = read_json(path)
        assert found is None or content.items() <= found.items(), f"bit {bit}"


def test_sha256_is_that_of_the_bytes(tmp_path):
    (tmp_path / "a").write_bytes(b"abc" * 100_000)
    assert sha256_of(tmp_path / "a") == hashlib.sha256(b"abc" * 100_000).hexdigest()


def test_parts_of_killed_writers_are_removed(tmp_path):
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / ".a.tar.123.part").write_bytes(b"half")
    (tmp_path / "x" / "a.tar").write_bytes(b"whole")
    remove_parts(tmp_path)
    assert [p.name for p in tmp_path.rglob("*") if p.is_file()] == ["a.tar"]


def test_what_is_hashed_beside_the_writing_is_what_was_written(tmp_path, monkeypatch):
    synced, sync = [], os.fdatasync
    monkeypatch.setattr(os, "fdatasync", lambda file: synced.append(sync(file)))
    parts = [bytes([number % 251]) * (7 * number) for number in range(2500)]  # 22 MB
    path = tmp_path / "some.bin"
    with atomic_write(path) as stream, HashingWriter(stream) as hashing:
        for first, second in zip(parts[::2], parts[1::2], strict=True):
            hashing.write(first, second)
    assert path.read_bytes() == b"".join(parts)
    assert hashing.hexdigest() == sha256_of(path) == hashlib.sha256(b"".join(parts)).hexdigest()
    assert len(synced) == 1  # each 16 MiB on the way; the end is atomic_write's


def test_a_disk_that_fails_beside_the_writing_fails_the_writer(tmp_path, monkeypatch):
    def fail(file):
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(os, "fdatasync", fail)
    path = tmp_path / "some.bin"
    with (
        pytest.raises(OSError, match="broken"),
        atomic_write(path) as stream,
        HashingWriter(stream) as hashing,
    ):
        hashing.write(bytes(1 << 24))
    assert not path.exists()


def test_a_writer_that_is_interrupted_says_so_and_writes_no_more():
    class Full(io.BytesIO):
        def write(self, block):
            raise OSError(errno.ENOSPC, "full")

    def write_and_interrupt():
        with HashingWriter(Full()) as hashing:
            hashing.write(b"x")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_and_interrupt()


def folder_with(path, content):
    path.mkdir()
    write_text(path / "a.txt", content)
    return path


@pytest.mark.parametrize("renames", [0, 1, 2])
def test_one_of_two_folders_is_always_there(tmp_path, monkeypatch, renames):
    """Killed before the first rename, between the two, or after them."""
    folder, part = folder_with(tmp_path / "export", "old"), folder_with(tmp_path / ".x.part", "new")
    real, done = type(folder).rename, 0

    def killed(self, target):
        nonlocal done
        if done == renames:
            raise KeyboardInterrupt
        done += 1
        return real(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(type(folder), "rename", killed)
        if renames == 2:
            patch.setattr("curate.run.files.sync_tree", lambda _: None)
            patch.setattr("curate.run.files.sync", lambda _: killed(folder, folder))
        with pytest.raises(KeyboardInterrupt):
            replace_folder(part, folder)
    remove_parts(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["export"]
    assert (folder / "a.txt").read_text() == ("new" if renames == 2 else "old")


def test_a_folder_gets_the_permissions_that_the_umask_leaves(tmp_path):
    """Also where a library made a file that only its owner may read."""
    part = tmp_path / ".made.part"
    (part / "inside").mkdir(parents=True)
    os.close(os.open(part / "inside" / "private", os.O_CREAT, 0o600))
    (part / "link").symlink_to("inside")
    before = os.umask(0o027)
    try:
        replace_folder(part, tmp_path / "made")
    finally:
        os.umask(before)
    assert (tmp_path / "made/inside/private").stat().st_mode & 0o777 == 0o640
    assert sorted(path.name for path in (tmp_path / "made").iterdir()) == ["inside", "link"]
