"""Copies of the training pictures that the report shows."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from curate.measures.decode import decode
from curate.pack.sample import read_shard
from curate.run.files import atomic_write
from curate.run.manifest import ShardInfo, intact
from finetune.sidecars import read_columns

_LARGEST_PX = 512


def save(
    curate_dir: Path, shards: Sequence[ShardInfo], keys: Collection[str], folder: Path
) -> dict[str, Path]:
    """Write pictures as ``folder/<key>.png``, and delete other pictures there; returns their paths by key.

    Only the shards that hold one are read.

    Args:
        curate_dir: the curation.
        shards: in which the pictures are.
        keys: of the pictures.
        folder: for nothing else.

    Raises:
        UserError: a shard is damaged.
    """
    wanted, found = set(keys), {}
    for shard in shards if wanted else ():
        if wanted.isdisjoint(read_columns(curate_dir, shard, ("key",))["key"].to_pylist()):
            continue
        for sample in read_shard(intact(curate_dir, shard)):
            if sample.key in wanted:
                picture = decode(sample.image)
                picture.thumbnail((_LARGEST_PX, _LARGEST_PX))
                found[sample.key] = folder / f"{sample.key}.png"
                with atomic_write(found[sample.key]) as stream:
                    picture.save(stream, "PNG")
    for stale in set(folder.glob("*.png")) - set(found.values()):
        stale.unlink()
    return found
