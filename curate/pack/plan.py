"""Decide which sample goes into which shard, and which shards are already written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from curate.pack.buckets import buckets, key_hashes
from curate.run.files import read_json, remove_parts
from curate.run.manifest import ShardInfo, stats_path


@dataclass(frozen=True, slots=True)
class Plan:
    """A shard to write: its path, its split, and the keys of its samples in order."""

    path: str
    split: str
    keys: list[str]


def plan(sides: Mapping[str, Sequence[str]], max_samples: int, prefix: str = "") -> list[Plan]:
    """Distribute the keys of each split over shards of at most ``max_samples``, in hash order.

    A shard is a bucket of ``buckets.buckets`` and has its number, so adding keys moves only those of
    a shard that becomes too large, about half of them. Numbers can have gaps. Names of tars begin with ``prefix``.
    """
    plans = []
    for split, keys in sorted(sides.items()):
        ordered = np.array(sorted(keys), object)  # so that the input's order never matters
        hashes = key_hashes(ordered)
        numbers = buckets(hashes, max_samples)
        order = np.lexsort((hashes, numbers))
        ordered = ordered[order].tolist()
        found, starts = np.unique(numbers[order], return_index=True)
        ends = [*starts[1:], len(ordered)]
        for number, start, end in zip(found, starts, ends, strict=False):
            plans.append(
                Plan(f"shards/{split}/{prefix}{number:06d}.tar", split, ordered[start:end])
            )
    return plans


def is_written(curate_dir: Path, planned: Plan, wanted: str) -> ShardInfo | None:
    """The shard if its statistics, which are written last, hold the digest ``wanted``; else None."""
    path = curate_dir / planned.path
    stats = stats_path(path)
    if not (stats.is_file() and path.is_file() and path.with_suffix(".parquet").is_file()):
        return None
    known = read_json(stats)
    if known is None or known.get("plan") != wanted or known["bytes"] != path.stat().st_size:
        return None
    return ShardInfo(planned.path, planned.split, known["count"], known["bytes"], known["sha256"])


def is_outdated(curate_dir: Path, planned: Plan, wanted: str) -> bool:
    """Whether a shard of this path is known to have another content than ``wanted``."""
    known = read_json(stats_path(curate_dir / planned.path))
    return known is not None and known.get("plan") != wanted


def remove_stale(curate_dir: Path, plans: list[Plan]) -> None:
    """Delete shards and sidecars of earlier configurations: those that ``plans`` does not name."""
    names = {str(Path(planned.path).with_suffix("")) for planned in plans}
    for path in sorted((curate_dir / "shards").rglob("*.*")):
        stem = path.relative_to(curate_dir).with_suffix("").as_posix().removesuffix("_stats")
        if path.is_file() and stem not in names:
            path.unlink()
    remove_parts(curate_dir / "shards")
