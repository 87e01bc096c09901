"""Seconds and peak memory of the search for near copies among looks on the disk, and planted ones that it finds."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from workflows.bench.compare import say

LOOKS, DISTANCE, PLANTED = 50_000_000, 4, 10_000
_BATCH = 1_000_000


def run(looks: int = LOOKS) -> None:
    """Print how long random hashes take, of which ``PLANTED`` have a copy a few bits away; 105 bytes of disk a look."""
    # A process of its own, so that its peak is not that of what ran before.
    done = subprocess.run(
        [sys.executable, "-m", "workflows.bench.near_copies", str(looks)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    found = json.loads(done.stdout)
    say(f"\nnear copies among {looks:,} looks, {DISTANCE} bits, in {found['tables']} tables")
    say(f"  writing the looks {found['writing']:8.1f} s")
    say(
        f"  searching         {found['searching']:8.1f} s, {found['searching'] / found['tables']:.1f} a table"
    )
    say(f"  peak memory       {found['peak'] / 1e9:8.2f} GB")
    say(f"  planted copies    {found['planted']:,} of {PLANTED:,}; {found['pairs']:,} pairs in all")


def _measured(looks: int) -> dict[str, float]:
    from curate.decide import near
    from curate.decide.evidence import COPIES
    from curate.decide.look_files import LookFiles
    from curate.decide.neighbours import band_tables
    from curate.run.database import Limits, connect
    from curate.run.engine.inprocess import InProcess

    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        files = LookFiles.write(Path(folder) / "looks", _batches(looks))
        written = time.perf_counter()
        found = near.search(files, DISTANCE, COPIES, InProcess())
        searched = time.perf_counter()
        with connect(Limits(Path(folder) / "scratch")) as connection:
            of_pairs = f"SELECT count(*), count(*) FILTER (other - one = {looks - PLANTED}) FROM ({found.near})"
            ((pairs, planted),) = connection.sql(of_pairs).fetchall()
    return {
        "tables": len(band_tables(looks, DISTANCE)),
        "writing": written - started,
        "searching": searched - written,
        "peak": _peak(),
        "pairs": pairs,
        "planted": planted,
    }


def _batches(looks: int) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Looks of random hashes; the last ``PLANTED`` are near the first."""
    first = _random(0, PLANTED)
    last = looks - PLANTED
    for start in range(0, last, _BATCH):
        numbers = np.arange(start, min(start + _BATCH, last))
        hashes, thumbnails = _random(start, len(numbers))
        if not start:
            hashes[:PLANTED], thumbnails[:PLANTED] = first
        yield numbers, hashes, thumbnails
    bits = np.random.default_rng(1).integers(0, 64, (DISTANCE, PLANTED), dtype=np.uint64)
    flipped = np.bitwise_or.reduce(np.uint64(1) << bits)
    yield np.arange(last, looks), first[0] ^ flipped, first[1]


def _random(seed: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    from curate.measures.thumbnail import BYTES

    rng = np.random.default_rng(seed)
    return rng.integers(0, 2**64, count, np.uint64), rng.integers(0, 256, (count, BYTES), np.uint8)


def _peak() -> int:
    """Peak memory of this process in bytes, without the pages of mapped files, which the system takes back."""
    import resource

    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    print(json.dumps(_measured(int(sys.argv[1]))))
