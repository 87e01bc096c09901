"""Memory that Python has freed, handed back to the system."""

from __future__ import annotations

import ctypes
import gc


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
