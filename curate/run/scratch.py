"""A folder of its own for each connection that writes what does not fit in memory.

DuckDB calls these files by the number of its process, and deletes those of processes that do not run on its machine.
Two containers may have processes of one number on one file system: in one folder, each would write to the files of the
other, or delete them.
"""

from __future__ import annotations

import fcntl
import os
import platform
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from curate.run.files import naming

_LOCK = ".lock"


@contextmanager
def own_folder(scratch: Path) -> Iterator[Path]:
    """An empty folder below ``scratch`` that nobody else uses; it is deleted with the block.

    What a killed process of this machine left there is deleted first. ``files.remove_parts`` finds the others.

    Raises:
        OSError: it cannot be made.
    """
    _remove_left(scratch)
    with naming(scratch):
        folder, lock = _made(scratch)
    try:
        yield folder
    finally:
        os.close(lock)  # some network file systems keep a name for what is deleted while it is open
        shutil.rmtree(folder, ignore_errors=True)


def _made(scratch: Path) -> tuple[Path, int]:
    """A new folder, and the descriptor of its lock, which the system frees when this process ends."""
    name = f"{_host()}-{os.getpid()}-{secrets.token_hex(4)}"
    begun, folder = scratch / f".begun.{name}.part", scratch / f".tables.{name}.part"
    begun.mkdir(parents=True)
    lock = None
    try:
        lock = os.open(begun / _LOCK, os.O_RDWR | os.O_CREAT, 0o666)
        with suppress(OSError):  # no locks on this file system: nobody deletes it then
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        begun.rename(folder)  # it never has this name without the lock
    except BaseException:
        if lock is not None:
            os.close(lock)
        shutil.rmtree(begun, ignore_errors=True)
        raise
    return folder, lock


def _remove_left(scratch: Path) -> None:
    """Delete the folders of this machine whose lock is free.

    The lock alone does not tell: some file systems hold it on one machine only.
    """
    for folder in scratch.glob(f".tables.{_host()}-*.part"):
        try:
            lock = os.open(folder / _LOCK, os.O_RDWR)
        except OSError:  # it is gone, or somebody else's
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:  # held, or there are no locks
            continue
        finally:
            os.close(lock)
        shutil.rmtree(folder, ignore_errors=True)


def _host() -> str:
    return re.sub(r"[^0-9A-Za-z_]", "_", platform.node())
