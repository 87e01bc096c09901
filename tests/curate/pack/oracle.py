"""Packing as it was while all rows were in memory: pandas frames, and keys in lists. Slow, short and independent."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from curate.pack.buckets import BITS, key_hashes
from curate.pack.config import ShardsConfig
from curate.pack.digest import digests
from curate.pack.images import companion_source, extension_of, image_source, images
from curate.pack.writer import write_shard
from curate.readers.scrub import COLUMN
from curate.run.companions import KINDS, location_column
from curate.run.ledger import HELD_OUT_BY
from curate.run.manifest import VERSION, ShardInfo
from tests.curate import small_ledgers


@dataclass(frozen=True, slots=True)
class Keyed:
    """A shard to write: its path, its split, and the keys of its samples in order."""

    path: str
    split: str
    keys: list[str]


def write(
    curate_dir: Path,
    table: pd.DataFrame,
    load: Callable[[str], bytes],
    config: ShardsConfig,
    prefix: str = "",
) -> list[ShardInfo]:
    """All shards of a ledger, in hash order, and the ledger with their paths."""
    kept = Samples(table)
    extension = extension_of(config.image_format, kept.formats)
    first = table[table["kept"]].drop_duplicates("key").set_index("key")
    image_of = image_source(load, first["location"], extension, config.jpeg_quality)
    places = {kind: location_column(kind) for kind in KINDS}
    beside = {kind: first[name] for kind, name in places.items() if name in first}
    companions_of = companion_source(load, beside)
    plans = plan(kept.sides(), config.max_samples, prefix)
    wanted = kept.digests(plans, f"{extension} {config.jpeg_quality} plain")
    found = []
    with ThreadPoolExecutor(2) as pool:
        for planned, digest in zip(plans, wanted, strict=True):
            rows = kept.rows(planned.keys)
            with closing(images(pool, image_of, rows, extension, 4)) as stored:
                made = (rows, digest, extension, stored, lambda: None, companions_of)
                found.append(write_shard(curate_dir, planned, *made))
    shard_of = {key: planned.path for planned in plans for key in planned.keys}
    shards = table["key"].where(table["kept"]).map(shard_of).fillna("")
    small_ledgers.write(curate_dir / "ledger", table.assign(shard=shards))
    return found


def plan(sides: Mapping[str, Sequence[str]], max_samples: int, prefix: str = "") -> list[Keyed]:
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
                Keyed(f"shards/{split}/{prefix}{number:06d}.tar", split, ordered[start:end])
            )
    return plans


def buckets(hashes: np.ndarray, most: int) -> np.ndarray:
    """The number of each hash's bucket, uint64 (N,), where no bucket holds more than ``most``.

    A bucket is the hashes that agree in their lowest d bits, and its number is these bits. All hashes
    begin in bucket 0, with d = 0. One that holds more than ``most`` is divided by its next bit: the
    hashes with 0 there keep the number i, the others get i + 2**d. So an added hash moves others only
    where it fills a bucket beyond ``most``, and of those it moves about half. No two buckets have the
    same number, because the hash i itself would lie in both. Numbers can have gaps.

    Hashes that are equal in all 64 bits stay together, however many they are.

    Args:
        hashes: uint64 (N,), in any order.
        most: 1 or more.
    """
    numbers = np.zeros(len(hashes), np.uint64)
    divided = np.arange(len(hashes))  # the hashes whose buckets hold too many
    for depth in range(1, BITS + 1):
        _, places, sizes = np.unique(numbers[divided], return_inverse=True, return_counts=True)
        divided = divided[sizes[places] > most]
        if not len(divided):
            break
        numbers[divided] = hashes[divided] & np.uint64(2**depth - 1)
    return numbers


_VERDICT = (
    *("kept", "rule", "reason", "status", "copy_group", "duplicate_of", "clip_model", "location"),
    *map(location_column, KINDS),
    "shard",
    COLUMN,
    HELD_OUT_BY,
)


class Samples:
    """The kept images of a ledger; ``rows`` builds their samples on demand."""

    def __init__(self, ledger: pd.DataFrame) -> None:
        kept = ledger[ledger["kept"]].drop(columns=list(_VERDICT), errors="ignore")
        self._pairs = kept.sort_values(
            ["key", "clip_similarity", "caption_index"], ascending=[True, False, True]
        )
        first = ~self._pairs["key"].duplicated()
        self._starts = np.append(np.flatnonzero(first), len(self._pairs))
        self._images = pd.Index(self._pairs.loc[first, "key"])
        self._sides = self._pairs.loc[first, "split"]
        self.formats = set(self._pairs["format"])

    def __len__(self) -> int:
        return len(self._images)

    def sides(self) -> dict[str, list[str]]:
        """The keys of each split."""
        return {
            str(side): self._images[(self._sides == side).to_numpy()].tolist()
            for side in self._sides.unique()
        }

    def digests(self, plans: Sequence[Keyed], settings: str) -> list[str]:
        """For each shard a digest that changes whenever its bytes would, see ``digest.digests``."""
        import pyarrow as pa

        pairs, ends = self._pairs_of([key for planned in plans for key in planned.keys])
        images = np.cumsum([len(planned.keys) for planned in plans], dtype=np.int64)
        edges = [0, *ends[images - 1].tolist()]
        # Of captions only the order counts.
        names = sorted(self._pairs.columns.drop("caption_index"))

        def column(name: str) -> pa.Array:
            values = pa.array(self._pairs[name].take(pairs), from_pandas=True)
            return values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values

        return digests(((name, column(name)) for name in names), edges, f"{VERSION} {settings}")

    def _pairs_of(self, keys: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """The rows of the pairs of each key in turn, and where each key's rows end among them."""
        places = self._images.get_indexer(pd.Index(keys))
        counts = self._starts[places + 1] - self._starts[places]
        ends = np.cumsum(counts)
        rows = np.repeat(self._starts[places] - ends + counts, counts) + np.arange(counts.sum())
        return rows, ends

    def rows(self, keys: Sequence[str]) -> list[dict[str, Any]]:
        """One row per key: ``captions`` and ``similarity``, the most similar first, then other columns."""
        pairs, _ = self._pairs_of(keys)
        groups = self._pairs.iloc[pairs].groupby("key", sort=False)
        images = groups.first().drop(columns=["caption", "caption_index", "clip_similarity"])
        images["captions"] = groups["caption"].agg(list)
        images["similarity"] = groups["clip_similarity"].agg(_rounded)
        front = ["captions", "similarity"]
        ordered = [*front, *sorted(images.columns.difference(front))]
        records = images[ordered].reset_index().to_dict("records")
        return [{str(name): _plain(value) for name, value in row.items()} for row in records]


def _rounded(values: pd.Series) -> list[float | None]:
    return [None if pd.isna(value) else round(float(value), 6) for value in values]


def _plain(value: Any) -> Any:
    """A numpy scalar as a Python value; a missing value as None."""
    if isinstance(value, list):
        return value
    if pd.isna(value):
        return None
    return value.item() if hasattr(value, "item") else value
