"""What a connection wrote for itself is deleted, by itself or by the next, and nobody deletes what another uses."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from curate.run.files import remove_parts
from curate.run.scratch import own_folder

HOLD = """
import pathlib, sys, time
from curate.run.scratch import own_folder
with own_folder(pathlib.Path(sys.argv[1])) as folder:
    (folder / "rows").write_bytes(b"1")
    print(folder, flush=True)
    time.sleep(60)
"""


def test_what_a_killed_process_left_is_deleted(tmp_path):
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, tmp_path], stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        folder = holder.stdout.readline().strip()
        with own_folder(tmp_path) as own:
            assert {*tmp_path.iterdir()} == {own, tmp_path / folder}
        assert {path.name for path in Path(folder).iterdir()} == {".lock", "rows"}
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait()
    with own_folder(tmp_path) as own:
        assert [*tmp_path.iterdir()] == [own]
    assert not [*tmp_path.iterdir()]


def test_another_machine_s_stays_until_all_is_cleared(tmp_path):
    theirs = tmp_path / ".tables.another_machine-1-abc.part"
    theirs.mkdir()
    (theirs / ".lock").touch()
    with own_folder(tmp_path):
        assert theirs.is_dir()
    remove_parts(tmp_path)
    assert not [*tmp_path.iterdir()]


def test_a_folder_that_cannot_be_made_leaves_nothing(tmp_path, monkeypatch):
    opened = os.open

    def refuse(path, *given, **named):
        if str(path).endswith(".lock"):
            raise OSError(28, "No space left on device")
        return opened(path, *given, **named)

    monkeypatch.setattr("os.open", refuse)
    with pytest.raises(OSError, match="No space"), own_folder(tmp_path):
        pass
    monkeypatch.undo()
    assert not [*tmp_path.iterdir()]


def test_without_locks_nothing_of_others_is_deleted(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr("fcntl.flock", refuse)
    with own_folder(tmp_path) as one, own_folder(tmp_path) as other:
        assert one.is_dir()
        assert other.is_dir()
    assert not [*tmp_path.iterdir()]
