"""Locks on the folders of a run's stages: one process writes a stage, several may read it meanwhile."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from curate.run.schema import Busy

_FILE = ".lock"  # holds a line for each process at work; empty when nobody is
_PATIENCE_S = 0.3  # a process that is leaving, or writing its line, holds the lock for a moment
_PAUSE_S = 0.02
_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)  # some network file systems


@contextmanager
def locked(folder: Path, option: str = "run.name", *, shared: bool = False) -> Iterator[int | None]:
    """Lock ``folder`` against other processes of this program; the system unlocks it when this one ends.

    Yields the lock's file descriptor, or None where nothing is locked. A child process that is given it
    (``pass_fds``) holds the lock as well, until it ends, whatever becomes of this process; see ``add_holder``.

    Args:
        folder: of a stage; it is made, unless the lock is shared.
        option: the key that the user can change to work in another folder; "" for none.
        shared: for reading: others may read as well, and nobody may write. Where there is nothing to
            read, or no lock can be made on a file system that is read-only, nothing is locked.

    Raises:
        Busy: another process holds the lock; names it.
    """
    if not shared:
        folder.mkdir(parents=True, exist_ok=True)
    file = _open(folder / _FILE, shared)
    if file is None:
        yield None
        return
    try:
        if not _acquire(file, fcntl.LOCK_SH if shared else fcntl.LOCK_EX):
            raise Busy(
                f"another process is at work in {folder}{_named(file)}; wait for it and type the same command again"
                + (f", or take another {option}" if option else "")
            )
        _write_line(file, alone=not shared)
        try:
            yield file
        finally:
            _leave(file)
    finally:
        os.close(file)


def add_holder(file: int, pid: int, program: str) -> None:
    """Say that a child process holds the lock, too, for the message of the next one."""
    known = {"pid": pid, "host": socket.gethostname(), "program": program}
    with suppress(OSError):  # the disk is full: the lock holds all the same
        os.write(file, json.dumps(known).encode() + b"\n")


def _open(path: Path, shared: bool) -> int | None:
    """A descriptor that child processes do not inherit; None where there is nothing to lock for reading."""
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
    except FileNotFoundError:
        return None  # the folder, which only writers make
    except OSError:
        if not shared:
            raise
    try:
        return os.open(path, os.O_RDONLY)  # enough for a shared lock
    except OSError:
        return None


def _acquire(file: int, kind: int) -> bool:
    give_up = time.monotonic() + _PATIENCE_S
    while True:
        try:
            fcntl.flock(file, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > give_up:
                return False
            time.sleep(_PAUSE_S)
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            print(
                "note: this file system has no locks (flock), so nothing keeps a second command out of this run",
                file=sys.stderr,
            )
            return True
        else:
            return True


def _write_line(file: int, alone: bool) -> None:
    """Say who works here, for the message of the next one; a read-only file cannot."""
    program = Path(sys.argv[0])
    known = {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "program": f"{program.parent.name}/{program.name}".removesuffix("/__main__.py"),
    }
    try:
        if alone:
            os.ftruncate(file, 0)
        os.write(file, json.dumps(known).encode() + b"\n")
    except OSError:  # read-only, or the disk is full: the lock holds all the same
        return


def _leave(file: int) -> None:
    """Empty the file if nobody else reads: lines of processes that are gone do not pile up."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(file, 0)
    except OSError:
        return


def _named(file: int) -> str:
    """The processes that the lock's file names and that still run: ``: process 42 (curate)``."""
    os.lseek(file, 0, os.SEEK_SET)
    lines = os.read(file, 1 << 16).decode(errors="replace").splitlines()
    found = [text for line in lines if (text := _in_words(line))]
    return f": {', '.join(dict.fromkeys(found))}" if found else ""


def _in_words(line: str) -> str:
    try:
        known: dict[str, Any] = json.loads(line)
        pid, host, program = known["pid"], known["host"], known["program"]
    except (ValueError, KeyError, TypeError):
        return ""
    if host != socket.gethostname():
        return f"process {pid} on {host} ({program})"
    return f"process {pid} ({program})" if _is_running(pid) else ""


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
