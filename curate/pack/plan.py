"""Decide which sample goes into which shard, and which shards are already written."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from curate.run.files import read_json, remove_parts
from curate.run.manifest import VERSION, ShardInfo, stats_path


@dataclass(frozen=True, slots=True)
class Plan:
    """A shard to write: its path, its split, and the keys of its samples in order."""

    path: str
    split: str
    keys: list[str]


def plan(sides: Mapping[str, Sequence[str]], max_samples: int, prefix: str = "") -> list[Plan]:
    """Distribute the keys of each split over shards of equal size (plus or minus one), in hash order.

    Hash order mixes the data, because readers shuffle only a few thousand samples at a time; and it
    is the same for the same data. Names of tars begin with ``prefix``.
    """
    plans = []
    for split, keys in sorted(sides.items()):
        shuffled = sorted(keys, key=lambda key: hashlib.blake2b(key.encode()).digest())
        count = -(-len(shuffled) // max_samples)
        for number in range(count):
            begin, end = (len(shuffled) * edge // count for edge in (number, number + 1))
            part = shuffled[begin:end]
            plans.append(Plan(f"shards/{split}/{prefix}{number:06d}.tar", split, part))
    return plans


def digest(rows: Sequence[dict[str, Any]], settings: str) -> str:
    """A hash that changes whenever the bytes of a shard with these samples would change."""
    known = json.dumps([VERSION, settings, rows], sort_keys=True)
    return hashlib.blake2b(known.encode(), digest_size=16).hexdigest()


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


def remove_stale(curate_dir: Path, plans: list[Plan]) -> None:
    """Delete shards and sidecars of earlier configurations: those that ``plans`` does not name."""
    names = {str(Path(planned.path).with_suffix("")) for planned in plans}
    for path in sorted((curate_dir / "shards").rglob("*.*")):
        stem = path.relative_to(curate_dir).with_suffix("").as_posix().removesuffix("_stats")
        if path.is_file() and stem not in names:
            path.unlink()
    remove_parts(curate_dir / "shards")
