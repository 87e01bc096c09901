"""Killing a program in front of each of its writes, in this process."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_CHANGES = ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate", "os.symlink")


class Killed(BaseException):
    """Nothing may catch it."""


class _Point:
    """Counts the writes below a folder; from the one numbered ``at`` on, none is done any more."""

    def __init__(self) -> None:
        self.root, self.at, self.count = "", 0, 0
        self.thread = 0

    def hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.at or threading.get_ident() != self.thread or not _writes(event, arguments):
            return
        place = arguments[0]
        if isinstance(place, int):  # a lock that is emptied as it is left
            return
        if Path(os.fsdecode(place)).is_absolute() and not os.fsdecode(place).startswith(self.root):
            return
        self.count += 1
        if self.count >= self.at:
            raise Killed(f"in front of {event} {place}")


def _writes(event: str, arguments: tuple[Any, ...]) -> bool:
    if event == "open":
        return not isinstance(arguments[0], int) and bool(arguments[2] & _WRITES)
    return event in _CHANGES


_point = _Point()
sys.addaudithook(lambda event, arguments: _point.hook(event, arguments))  # cannot be taken away


@contextmanager
def killed_at(number: int, root: Path) -> Iterator[Callable[[], bool]]:
    """Kill the block in front of its write with a number, counted from 1; yields whether that happened.

    What is written by relative names (``shutil.rmtree`` deletes so) counts as below ``root``.
    """
    _point.root, _point.at, _point.count = str(root), number, 0
    _point.thread = threading.get_ident()
    was = False
    try:
        yield lambda: was
    except Killed:
        was = True
    finally:
        _point.at = 0
