"""Near copies among looks on the disk: tasks that each compare a bucket of them, and write the pairs to a file.

First come the crowds. A logo or placeholder comes thousands of times, saved in as many ways; to compare
all with all would take hours. Of more than ``CROWD`` looks of one hash each is compared with the leaders so
far, of which such a crowd has few, and goes with the first that it is alike; what is like none of
``MOST_LEADERS`` is taken for a look of its own. Then the others are compared, leaders among them, in tables
of bands, see ``neighbours.hamming_pairs``.

A bucket holds whole runs of equal bands, so neither the number of buckets nor the engine decides anything; nor
does the number of tables, which follows from the number of looks, as long as no run is too long, see ``runs``.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from curate.decide import edges
from curate.decide.evidence import Evidence, alike
from curate.decide.look_files import LookFiles
from curate.decide.neighbours import Pairs, band_tables
from curate.decide.runs import Runs
from curate.run.engine.inprocess import InProcess
from curate.run.engine.tasks import Engine, Progress, Worker, WorkerSpec, values
from curate.run.hashing import GOLDEN

CROWD = 512  # looks of one hash; up to there all are compared with all
MOST_LEADERS = 1024
BUCKET = 1 << 24  # looks that a task compares, about; it holds 50 bytes of each

_FEW = 1 << 16  # looks that are compared sooner than another process starts
_BLOCK = 1 << 20  # hashes that are looked through at a time
_SEEN = 1 << 16  # pairs whose thumbnails are in memory at a time: 30 MB
_EVERY_BIT = np.uint64(2**64 - 1)


@dataclass(frozen=True, slots=True)
class Crowds:
    """Runs of equal bands too long to compare all with all: see ``runs``.

    Attributes:
        runs: how many, in all tables.
        looks: how many hashes are in these; one that is in runs of several tables counts in each.
    """

    runs: int = 0
    looks: int = 0

    def __add__(self, other: Crowds) -> Crowds:
        return Crowds(self.runs + other.runs, self.looks + other.looks)


@dataclass(frozen=True, slots=True)
class Found:
    """What a search found; both are queries with the columns ``one`` and ``other``, numbers of looks.

    Attributes:
        led: each look that goes with a leader, as ``other``, with that leader.
        near: near pairs of looks that are not led, each pair once, the earlier look as ``one``.
        crowds: what was not compared.
    """

    led: str
    near: str
    crowds: Crowds


def search(looks: LookFiles, distance: int, limits: Evidence, engine: Engine) -> Found:
    """Find the looks that are near in ``distance`` bits and alike by ``limits``.

    Of a crowd a look that comes first leads; so the order of ``looks`` matters, and no other one.
    """
    buckets = max(1, -(-looks.count // BUCKET))
    chosen = engine if looks.count > _FEW else InProcess()
    spec = WorkerSpec(
        "curate.decide.near:leading", {"looks": looks, "limits": limits, "buckets": buckets}
    )
    of_crowds = values(chosen.map(spec, list(range(buckets))), "searching crowds of near copies")
    led = [looks.folder / name for name in sorted(of_crowds)]
    count = looks.count - looks.write_led(led)
    spec = WorkerSpec(
        "curate.decide.near:comparing",
        {
            "looks": looks,
            "limits": limits,
            "buckets": buckets,
            "distance": distance,
            "count": count,
        },
    )
    tables = range(len(band_tables(count, distance)))
    tasks = [(table, bucket) for table in tables for bucket in range(buckets)]
    done = values(chosen.map(spec, tasks), "searching near copies")
    crowds = sum((Crowds(*crowd) for _, crowd in done), Crowds())
    near = [looks.folder / name for name in sorted(name for name, _ in done)]
    return Found(edges.of_files(led), edges.of_files(near), crowds)


@contextmanager
def leading(looks: LookFiles, limits: Evidence, buckets: int) -> Iterator[Worker]:
    """A worker for buckets of hashes: it writes who is led by whom and gives the file's name.

    Beside it, ``looks.write_led`` finds the positions of those that are led.
    """
    numbers, thumbnails = looks.numbers, looks.thumbnails

    def work(bucket: int, progress: Progress) -> str:
        positions, hashes = _of_bucket(looks.hashes, _EVERY_BIT, bucket, buckets)
        found = [
            pair for crowd in _crowds(positions, hashes) for pair in _led(crowd, thumbnails, limits)
        ]
        path = looks.folder / f"led-{bucket:05d}.parquet"
        looks.write_led_of(path, [led for _, led in found])
        edges.write(
            path, ((numbers[np.full(len(led), leader)], numbers[led]) for leader, led in found)
        )
        return path.name

    yield work


def _crowds(positions: np.ndarray, hashes: np.ndarray) -> Iterator[np.ndarray]:
    """The ascending positions of each hash that more than ``CROWD`` looks have."""
    order = np.argsort(hashes, kind="stable")
    ordered = hashes[order]
    starts = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1])[: len(ordered)])
    sizes = np.diff(np.append(starts, len(ordered)))
    for start, size in zip(
        starts[sizes > CROWD].tolist(), sizes[sizes > CROWD].tolist(), strict=True
    ):
        yield positions[order[start : start + size]]


def _led(
    crowd: np.ndarray, thumbnails: np.ndarray, limits: Evidence
) -> Iterator[tuple[int, np.ndarray]]:
    """Each leader of a crowd, a position, and the positions of those it leads (M,)."""
    left, leaders = crowd, 0
    while len(left) and leaders < MOST_LEADERS:
        leader, others = int(left[0]), left[1:]
        near = _alike(thumbnails, np.full(len(others), leader), others, limits)
        if near.any():
            yield leader, others[near]
        left, leaders = others[~near], leaders + 1


@contextmanager
def comparing(
    looks: LookFiles, limits: Evidence, buckets: int, distance: int, count: int
) -> Iterator[Worker]:
    """A worker for buckets of tables: it writes the near pairs and gives the file's name.

    Besides it gives the runs that were too long and how many hashes are in them.
    """
    numbers, thumbnails, hashes, led = looks.numbers, looks.thumbnails, looks.hashes, looks.led
    tables = band_tables(count, distance)

    def work(task: tuple[int, int], progress: Progress) -> tuple[str, tuple[int, int]]:
        number, bucket = task
        table = tables[number]
        rows, values = _of_bucket(hashes, table.mask, bucket, buckets, led)
        runs = Runs(values, table, distance)
        pairs = (
            (numbers[rows[one]], numbers[rows[other]])
            for one, other in _alike_ones(runs.pairs(), rows, thumbnails, limits)
        )
        path = looks.folder / f"near-{number:05d}-{bucket:05d}.parquet"
        edges.write(path, pairs)
        return path.name, (len(runs.crowded), sum(runs.crowded))

    yield work


def _alike_ones(found: Pairs, rows: np.ndarray, thumbnails: np.ndarray, limits: Evidence) -> Pairs:
    """Of pairs of places in ``rows`` those that are alike, the earlier one first."""
    for one, other in found:
        first, second = np.minimum(one, other), np.maximum(one, other)
        same = _alike(thumbnails, rows[first], rows[second], limits)
        yield first[same], second[same]


def _alike(
    thumbnails: np.ndarray, one: np.ndarray, other: np.ndarray, limits: Evidence
) -> np.ndarray:
    """Mask (M,) of the pairs of positions whose thumbnails are alike, a block at a time."""
    found = np.zeros(len(one), bool)
    for start in range(0, len(one), _SEEN):
        at = slice(start, start + _SEEN)
        found[at] = alike(thumbnails[one[at]], thumbnails[other[at]], limits)
    return found


def _of_bucket(
    hashes: np.ndarray, mask: np.uint64, bucket: int, buckets: int, without: Any = None
) -> tuple[np.ndarray, np.ndarray]:
    """Ascending positions (M,) of the hashes whose bits in ``mask`` fall into a bucket, and these hashes (M,)."""
    positions, taken = [], []
    for start in range(0, len(hashes), _BLOCK):
        block = hashes[start : start + _BLOCK]
        inside = np.ones(len(block), bool)
        if buckets > 1:
            mixed = ((block & mask) * np.uint64(GOLDEN)) >> np.uint64(32)
            inside = (mixed * np.uint64(buckets)) >> np.uint64(32) == bucket
        if without is not None:
            inside &= ~without[start : start + _BLOCK]
        at = np.flatnonzero(inside)
        positions.append(at + start)
        taken.append(block[at])
    none = np.empty(0, np.int64), np.empty(0, np.uint64)
    return np.concatenate([none[0], *positions]), np.concatenate([none[1], *taken])
