"""The memory that this process may use, and what Python has freed of it, handed back to the system."""

from __future__ import annotations

import ctypes
import gc
import os
from collections.abc import Iterator

from curate.run import control_groups

_SHARE = 0.4  # for tables; the rest is for arrays beside them, and for the system's cache of files


def available() -> int:
    """Bytes of memory: the machine's, or the least limit of a control group of this process, such as a container's."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([machine, *_limits()])


def for_tables() -> int:
    """Bytes of memory that tables take where nobody says how many: a share of what is available."""
    return int(_SHARE * available())


def _limits() -> Iterator[int]:
    """The limits of this process's control groups and of those above them."""
    for version, folder in control_groups.folders("memory"):
        name = "memory.max" if version == 2 else "memory.limit_in_bytes"
        text = control_groups.text_of(folder / name)
        if text.isdigit() and int(text):  # "max" is none
            yield int(text)


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
