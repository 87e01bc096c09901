"""Which sample goes into which shard, and which shards are already written."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from curate.run.files import read_json, remove_parts
from curate.run.manifest import ShardInfo, stats_path


@dataclass(frozen=True, slots=True)
class Plan:
    """A shard to write.

    Attributes:
        path: of the tar, below the run's ``curate`` folder.
        split: its side.
        samples: how many images it holds.
        place: of its rows among those of all shards, see ``Planned``.
    """

    path: str
    split: str
    samples: int
    place: int = 0


@dataclass(frozen=True, slots=True)
class Side:
    """The S shards of one split. Each holds the images whose numbers lie between its start and the next one's.

    Attributes:
        starts: ascending, uint64 (S,).
        names: the numbers in the tars' names, uint64 (S,).
        samples: int64 (S,).
    """

    starts: np.ndarray
    names: np.ndarray
    samples: np.ndarray


@dataclass(frozen=True, slots=True)
class Planned:
    """All shards of a data set, as a function of a split and a number; what the number is, ``numbering`` says.

    Attributes:
        sides: by split, in the order of the alphabet.
        prefix: of the tars' names.
    """

    sides: Mapping[str, Side]
    prefix: str = ""

    def plans(self) -> list[Plan]:
        """The shards by split and name. Their places are by split and start."""
        found, before = [], 0
        for split, side in self.sides.items():
            for place in np.argsort(side.names).tolist():
                path, samples = self._path(split, int(side.names[place])), int(side.samples[place])
                found.append(Plan(path, split, samples, before + place))
            before += len(side.starts)
        return found

    def places(self, splits: np.ndarray, numbers: np.ndarray) -> np.ndarray:
        """The place of the shard of each image, int64 (N,).

        Args:
            splits: [N] texts.
            numbers: uint64 (N,).
        """
        found, before = np.full(len(numbers), -1, np.int64), 0
        for split, side in self.sides.items():
            own = np.flatnonzero(splits == split)
            found[own] = before + np.searchsorted(side.starts, numbers[own], side="right") - 1
            before += len(side.starts)
        return found

    def paths(self, places: Iterable[int]) -> list[str]:
        """The path of the shard at each place."""
        splits = list(self.sides)
        ends = np.cumsum([len(self.sides[split].starts) for split in splits])
        found = []
        for place in places:
            which = int(np.searchsorted(ends, place, side="right"))
            side = self.sides[splits[which]]
            name = side.names[place - (ends[which] - len(side.starts))]
            found.append(self._path(splits[which], int(name)))
        return found

    def _path(self, split: str, name: int) -> str:
        return f"shards/{split}/{self.prefix}{name:06d}.tar"


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
