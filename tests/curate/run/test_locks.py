"""One process writes a stage, several may read it; who is refused learns who is at work."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from curate.run import cli as command
from curate.run.locks import locked
from curate.run.schema import Busy

ROOT = Path(__file__).resolve().parents[3]
HOLD = """
import sys
from pathlib import Path
from curate.run.locks import locked
with locked(Path(sys.argv[1]), shared=sys.argv[2] == "shared"):
    print("locked", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
    """Start processes that hold a lock on ``tmp_path`` until they are killed."""
    started = []

    def start(kind):
        process = subprocess.Popen(
            [sys.executable, "-c", HOLD, str(tmp_path), kind],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "locked\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_a_writer_excludes_all_and_is_named_until_it_is_killed(holder, tmp_path):
    process = holder("alone")
    for shared in (False, True):
        with pytest.raises(Busy, match=f"process {process.pid} "), locked(tmp_path, shared=shared):
            pass
    process.send_signal(signal.SIGKILL)
    process.wait()
    with locked(tmp_path):
        assert str(os.getpid()) in (tmp_path / ".lock").read_text()
        assert str(process.pid) not in (tmp_path / ".lock").read_text()
    assert (tmp_path / ".lock").read_text() == ""


def test_readers_do_not_exclude_each_other_but_writers(holder, tmp_path):
    first, second = holder("shared"), holder("shared")
    with locked(tmp_path, shared=True):
        pass
    with pytest.raises(Busy) as refused, locked(tmp_path):
        pass
    assert f"process {first.pid} " in str(refused.value)
    assert f"process {second.pid} " in str(refused.value)
    for process in (first, second):
        process.communicate()  # closes its input, so that it ends
    with locked(tmp_path):
        pass


def test_a_child_does_not_keep_the_lock(tmp_path):
    with locked(tmp_path):
        child = subprocess.Popen(["sleep", "60"], close_fds=False)
    try:
        with locked(tmp_path):
            pass
    finally:
        child.kill()
        child.wait()


def test_nothing_is_made_or_needed_for_reading(tmp_path):
    with locked(tmp_path / "nowhere", shared=True):
        assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("there", [True, False])
def test_a_folder_that_cannot_be_written_to_can_be_read(tmp_path, monkeypatch, there):
    """As on a file system that is mounted read-only."""
    real = os.open

    def refusing(path, flags, mode=0o777):
        if flags & (os.O_CREAT | os.O_RDWR | os.O_WRONLY):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
        return real(path, flags, mode)

    if there:
        (tmp_path / ".lock").touch()
    monkeypatch.setattr(os, "open", refusing)
    with locked(tmp_path, shared=True):
        assert (tmp_path / ".lock").exists() == there
    with pytest.raises(OSError, match="Read-only"), locked(tmp_path):
        pass


def test_a_command_that_finds_another_at_work_ends_with_75(tmp_path, capsys):
    def work():
        with locked(tmp_path, "run.name"):
            pass

    with locked(tmp_path), pytest.raises(SystemExit) as leaving:
        command.run(work)
    assert leaving.value.code == command.EXIT_BUSY == 75
    said = capsys.readouterr().err
    assert said.startswith(
        f"error: another process is at work in {tmp_path}: process {os.getpid()} ("
    )
    assert "wait for it and type the same command again, or take another run.name" in said


def test_a_file_system_without_locks_is_said_and_worked_on(tmp_path, monkeypatch, capsys):
    def refused(file, kind):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("curate.run.locks.fcntl.flock", refused)
    with locked(tmp_path / "curate"):
        pass
    assert "this file system has no locks" in capsys.readouterr().err
