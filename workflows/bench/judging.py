"""Seconds, memory and disk of judging 100 million narrow rows: the queries on all rows at once, in DuckDB.

The rows are made up, 100 files of the tables of ``decide.tables``: a tenth of the images are exact copies of others,
captions occur several times, a fifth of the rows are dropped by a rule on the row alone. The judge runs in a process of its own,
whose peak is the kernel's count for it.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from workflows.bench.compare import say

ROWS, FILES = 100_000_000, 100
MEMORY_BYTES = (
    1_500_000_000  # ``engine.memory``: Python, Arrow and what DuckDB does not count come on top
)
MOST_MIB = 2_500
_COPIES = 10  # one image in so many is the copy of another
_CAPTIONS = 5  # captions occur as often, on average

if TYPE_CHECKING:
    import duckdb

_CODE = """
import sys
from workflows.bench.judging import measure
measure(*sys.argv[1:])
"""


def run() -> None:
    """Print rows, seconds, peak memory and spill; ``JUDGE_ROWS`` in the environment asks for fewer rows."""
    rows = int(float(os.environ.get("JUDGE_ROWS", ROWS)))
    with tempfile.TemporaryDirectory() as temporary:
        folder, started = Path(temporary), time.perf_counter()
        write_tables(folder, rows)
        took = time.perf_counter() - started
        size = sum(path.stat().st_size for path in folder.rglob("*.parquet"))
        say(f"\njudging {rows:,} narrow rows in {FILES} files, {size / 1e9:.1f} GB")
        say(f"  writing them {took:8.0f} s")
        command = [sys.executable, "-c", _CODE, str(folder)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found = json.loads(done.stdout.splitlines()[-1])
    for name, seconds in found["seconds"].items():
        say(f"  {name:12} {seconds:8.1f} s {rows / seconds / 1e6:8.2f} M rows/s")
    within = "within" if found["peak_mib"] <= MOST_MIB else "BEYOND"
    say(f"  peak memory  {found['peak_mib']:8.0f} MiB, {within} {MOST_MIB:,}")
    say(f"  spill        {found['spill_mib']:8.0f} MiB at most at once")


def write_tables(folder: Path, rows: int) -> None:
    """Write ``FILES`` files of each table, every image with one caption."""
    for name in ("pairs", "images", "words"):
        (folder / name).mkdir()
    edges = np.linspace(0, rows, FILES + 1).astype(np.int64)
    for number in range(FILES):
        made = _tables(int(edges[number]), int(edges[number + 1]), rows)
        for name, table in made.items():
            path = folder / name / f"{number:05d}.parquet"
            pq.write_table(table, path, compression="zstd", use_dictionary=False)


def _tables(first: int, end: int, count: int) -> dict[str, pa.Table]:
    """The rows ``first`` up to ``end`` of ``count``; no value depends on where the files end."""
    from curate.decide import tables
    from curate.measures.thumbnail import BYTES

    rows = np.arange(first, end, dtype=np.int64)
    shown = np.where(rows % _COPIES == _COPIES - 1, rows // _COPIES, rows)  # whose picture it is
    picture, pair = _mixed(shown), _mixed(rows, 1)
    caption = _mixed(pair % np.uint64(max(1, count // _CAPTIONS)), 2)
    keys = _hex(_mixed(rows, 3))
    codes = np.where(pair % np.uint64(5) == 0, 1, tables.PASSES).astype(np.int16)
    similarity = (pair >> np.uint64(40)).astype(np.float32) / np.float32(2**24)
    pairs = {
        "row": rows,
        "image": rows,
        "key": keys,
        "caption": _binary(np.column_stack([caption, _mixed(caption, 4)])),
        "code": codes,
        "similarity": similarity,
        "number": pair,
    }
    thumbnails = np.tile(picture[:, None], (1, -(-BYTES // 8))).view(np.uint8)[:, :BYTES]
    images = {
        "image": rows,
        "key": keys,
        "number": pair,
        "area": (picture % np.uint64(10**6)).astype(np.int64),
        "sha256": _hex(picture, 4),
        "pixels": picture,
        "phash": _mixed(shown, 5),
        "phash_mirrored": _mixed(shown, 6),
        "look": _mixed(shown, 7),
        "look_mirrored": _mixed(shown, 8),
        "thumbnail": _binary(thumbnails),
        "given_group": pa.nulls(len(rows), pa.string()),
    }
    words = {
        "row": np.repeat(rows, 2),
        "image": np.repeat(rows, 2),
        "word": np.column_stack([caption, _mixed(picture, 9)]).ravel() % np.uint64(100_000),
    }
    made = {}
    for name, columns in (("pairs", pairs), ("images", images), ("words", words)):
        schema = tables.TABLES[name]
        made[name] = pa.table({each: columns[each] for each in schema.names}, schema=schema)
    return made


def _mixed(numbers: np.ndarray, salt: int = 0) -> np.ndarray:
    """SplitMix64's finaliser (Steele, Lea, Flood 2014), uint64 (N,)."""
    with np.errstate(over="ignore"):
        z = numbers.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15) * np.uint64(salt + 1)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


def _hex(numbers: np.ndarray, times: int = 1) -> pa.Array:
    """16 hex digits of each number, ``times`` over."""
    held = np.ascontiguousarray(numbers.astype(">u8")).view(np.uint8).reshape(-1, 8)
    of_byte = np.frombuffer("".join(f"{byte:02x}" for byte in range(256)).encode(), np.uint16)
    digits = np.tile(of_byte[held], (1, times)).view(np.uint8)
    width = digits.shape[1]
    offsets = np.arange(len(numbers) + 1, dtype=np.int32) * np.int32(width)
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(np.ascontiguousarray(digits))]
    return pa.Array.from_buffers(pa.string(), len(numbers), buffers)


def _binary(values: np.ndarray) -> pa.Array:
    """The bytes of each row."""
    held = np.ascontiguousarray(values).view(np.uint8).reshape(len(values), -1)
    kind = pa.binary(held.shape[1]) if held.shape[1] else pa.binary()
    return pa.Array.from_buffers(kind, len(values), [None, pa.py_buffer(held)])


def measure(folder: str) -> None:
    """Judge the tables in a folder, and print as JSON what it took."""
    from curate.decide.tables import TABLES, create_views
    from curate.run.database import Limits, connect

    place = Path(folder)
    limits = Limits(place / "scratch", MEMORY_BYTES)
    seconds, spilled, done = {}, [0], threading.Event()
    watching = threading.Thread(target=_watch, args=(limits.scratch, spilled, done))
    watching.start()
    try:
        with connect(limits) as connection:
            create_views(connection, {name: sorted((place / name).iterdir()) for name in TABLES})
            for name, step in _steps(connection, place):
                started = time.perf_counter()
                step()
                seconds[name] = time.perf_counter() - started
    finally:
        done.set()
        watching.join()
    # Not ru_maxrss: a child process starts with its parent's peak.
    status = Path("/proc/self/status").read_text()
    peak = int(re.search(r"VmHWM:\s+(\d+)", status)[1]) / 1024  # type: ignore[index]
    print(json.dumps({"seconds": seconds, "peak_mib": peak, "spill_mib": spilled[0] / 2**20}))


def _steps(
    connection: duckdb.DuckDBPyConnection, folder: Path
) -> Iterator[tuple[str, Callable[[], object]]]:
    """What ``decide.stage`` asks of all rows at once, without near copies, siblings and embeddings."""
    from curate.annotate.embeddings import Embeddings
    from curate.decide import duplicates, narrow, stage
    from curate.decide.config import SplitConfig
    from curate.decide.judgement import Judgement
    from curate.filters.caption import CaptionFilterConfig
    from curate.filters.config import FiltersConfig
    from curate.filters.similarity import ClipSimilarityConfig
    from curate.run.engine.inprocess import InProcess
    from curate.run.removals import Removals

    filters = FiltersConfig(
        caption=CaptionFilterConfig(max_occurrences=10),
        clip_similarity=ClipSimilarityConfig(fraction=0.5),
    )
    sides = SplitConfig(hamming_distance=None, siblings=False)
    judgement = Judgement(connection, narrow.rules_in_order(filters, Removals()))
    near = (Embeddings([]), folder / "copies", InProcess())

    def group() -> None:
        duplicates.copy_groups(connection, sides, filters.duplicates, *near)
        connection.sql("CREATE VIEW groups AS SELECT image, name FROM copy_groups")

    def keep() -> None:
        stage._create_left_images(connection)
        duplicates.keepers(connection, filters.duplicates, *near)
        judgement.drop_copies()

    yield "exact copies", group
    yield "rules", lambda: judgement.judge(filters, None)
    yield "keeping", keep
    yield "split", lambda: stage._split(connection, sides, False)
    yield "funnel", lambda: judgement.steps({})


def _watch(scratch: Path, spilled: list[int], done: threading.Event) -> None:
    """Keep the largest size that a folder has had."""
    while not done.wait(0.2):
        sizes = 0
        for path in scratch.rglob("*"):
            try:
                sizes += path.stat().st_size
            except FileNotFoundError:
                continue
        spilled[0] = max(spilled[0], sizes)
