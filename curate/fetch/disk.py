"""What the store asks of the disk and of its thread: room, syncing now and then, and a pace that lets others work."""

from __future__ import annotations

import errno
import os
import shutil
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from curate.run.files import naming, sync

_SYNC_S = 5.0
_LOOK_BYTES = 64 * 2**20  # of answers between two looks at the free space
_SPARE_BYTES = 16 * 2**20  # beside what the shard itself takes
_WORK_S, _REST_S = 0.001, 0.002  # of a thread beside the requests


class Disk:
    """The disk of a folder that answers are written to."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._looked_at = _LOOK_BYTES
        self._synced = time.monotonic()
        self._thread = ThreadPoolExecutor(1, "fetch-sync")
        self._syncing = self._thread.submit(_sync, [])

    def look(self, begun: int, size: int) -> None:
        """Raise while there is still room to write the shard that an answer belongs to.

        Args:
            begun: bytes of the shard's journal.
            size: of the answer.

        Raises:
            OSError: the disk is about full.
        """
        self._looked_at += size
        if self._looked_at < _LOOK_BYTES:
            return
        self._looked_at = 0
        if shutil.disk_usage(self._folder).free < begun + size + _SPARE_BYTES:
            with naming(self._folder):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def sync_now_and_then(self, paths: Iterable[Path]) -> None:
        """Bring files to the disk, in a thread, if the last time was some seconds ago.

        Raises:
            OSError: the last time it failed.
        """
        now = time.monotonic()
        if now - self._synced > _SYNC_S and self._syncing.done():
            self._syncing.result()
            self._synced = now
            self._syncing = self._thread.submit(_sync, list(paths))

    def close(self) -> None:
        """Wait for the thread."""
        self._thread.shutdown(cancel_futures=True)


def _sync(paths: list[Path]) -> None:
    for path in paths:
        with suppress(FileNotFoundError):  # its shard has been written meanwhile
            sync(path)


class Pace:
    """Rests for a while after each short piece of work, unless it is in a hurry.

    Python runs one thread at a time. Writing a shard in one go takes that turn away from the requests, a third
    of which are then late; in small pieces it fits between them.
    """

    def __init__(self) -> None:
        self.is_hurried = False
        self._since = 0.0

    def __call__(self) -> None:
        """Rest, if it is time to."""
        if not self.is_hurried and time.perf_counter() - self._since > _WORK_S:
            time.sleep(_REST_S)
            self._since = time.perf_counter()
