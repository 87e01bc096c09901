"""The memory that this process may use, and what Python has freed of it, handed back to the system."""

from __future__ import annotations

import ctypes
import gc
import os
from collections.abc import Iterator
from pathlib import Path

_GROUPS = Path("/proc/self/cgroup")
_MOUNT = Path("/sys/fs/cgroup")


def available() -> int:
    """Bytes of memory: the machine's, or the least limit of a control group of this process, such as a container's."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([machine, *_limits()])


def _limits() -> Iterator[int]:
    """The limits of this process's control groups and of those above them, of version 2 and 1; see cgroups(7)."""
    for path in _limit_files():
        try:
            text = path.read_text().strip()
        except OSError:  # of another mount, or the root, which has none
            continue
        if text.isdigit() and int(text):  # "max" is none
            yield int(text)


def _limit_files() -> Iterator[Path]:
    try:
        lines = _GROUPS.read_text().splitlines()
    except OSError:  # not Linux
        return
    for line in lines:
        _, kinds, group = line.split(":", 2)
        if kinds and "memory" not in kinds.split(","):
            continue
        top = _MOUNT / "memory" if kinds else _MOUNT
        name = "memory.limit_in_bytes" if kinds else "memory.max"
        folder = top / group.lstrip("/")
        # In a container the mount may begin at its own group, so the path from the host's root leads nowhere.
        for each in (folder, *folder.parents):
            yield each / name
            if each == top:
                break


def give_back() -> None:
    """Return what is freed but still held by the allocators; worth it after a model was used.

    glibc keeps freed blocks below the top of its heaps, and so does arrow's allocator. Where the C
    library has no ``malloc_trim`` (musl, macOS) only the latter's are returned.
    """
    import pyarrow as pa

    gc.collect()
    pa.default_memory_pool().release_unused()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
