"""What a model leaves behind goes back to the system."""

import resource
from pathlib import Path

import pytest

from curate.run.memory import give_back

SMALL = 1 << 10  # below the size that glibc maps apart and so returns by itself


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads Linux's /proc")
def test_freed_blocks_are_returned():
    held = [bytearray(SMALL) for _ in range(200_000)]
    last = bytearray(SMALL)  # the heap cannot shrink below what is still in use
    full = resident()
    del held
    give_back()
    assert resident() < full - 100 * SMALL * 1000
    assert len(last) == SMALL
