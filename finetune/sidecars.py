"""The tables beside the shards: what the curation knew of each sample."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from curate.run.finished import to_mend
from curate.run.joined import owner_of, path_of
from curate.run.manifest import Manifest, ShardInfo
from curate.run.parquet import reporting_damage
from curate.run.provenance import curate_command
from curate.run.schema import UserError

if TYPE_CHECKING:
    import pyarrow as pa

GROUP = "duplicate_group"
_SIZE = ("width", "height")


def read_columns(curate_dir: Path, shard: ShardInfo, names: Sequence[str]) -> pa.Table:
    """Those of the columns ``names`` that the shard's table has.

    Raises:
        UserError: the table is damaged; says what to type.
    """
    import pyarrow.parquet as pq

    path = path_of(curate_dir, shard.path).with_suffix(".parquet")
    with reporting_damage(path, partial(_remedy, path, owner_of(curate_dir, shard.path))):
        present = set(pq.read_schema(path).names)
        return pq.read_table(path, columns=[name for name in names if name in present])


def _remedy(path: Path, curate_dir: Path) -> str:
    run_dir = curate_dir.parent
    return to_mend(run_dir, f"delete it and type: {curate_command(run_dir)}")


def captions_of(curate_dir: Path, shard: ShardInfo) -> list[str]:
    """All captions of a shard's samples."""
    table = read_columns(curate_dir, shard, ("caption", "captions"))
    if "captions" not in table.column_names:
        return [caption or "" for caption in table["caption"].to_pylist()]
    return [text for captions in table["captions"].to_pylist() for text in captions or ()]


def sizes_of(curate_dir: Path, shard: ShardInfo) -> dict[str, tuple[int, int]]:
    """Width and height of each picture of a shard as it is stored, upright, by key.

    Raises:
        UserError: the table is damaged, or does not know them; says what to type.
    """
    table = read_columns(curate_dir, shard, ("key", *_SIZE))
    missing = [name for name in _SIZE if name not in table.column_names or table[name].null_count]
    if missing:
        path = path_of(curate_dir, shard.path).with_suffix(".parquet")
        run_dir = owner_of(curate_dir, shard.path).parent
        raise UserError(
            f"{path} does not know the pictures' {' and '.join(missing)}, which aspect buckets and crops go by; type "
            f"{curate_command(run_dir)}"
        )
    keys, *sizes = (table[name].to_pylist() for name in ("key", *_SIZE))
    return dict(zip(keys, zip(*sizes, strict=True), strict=True))


def duplicate_groups(
    curate_dir: Path, shards: Sequence[ShardInfo], keys: Sequence[str]
) -> list[str]:
    """The duplicate group of each of ``keys``, samples of ``shards``; one without a group is its own."""
    import pyarrow as pa
    import pyarrow.compute as pc

    found: dict[str, str] = {}
    wanted = pa.array(keys, pa.string())  # of no keys, the type would not be known
    for shard in shards:
        table = read_columns(curate_dir, shard, ("key", GROUP))
        if GROUP in table.column_names:
            rows = table.filter(pc.field("key").isin(wanted))
            found |= zip(rows["key"].to_pylist(), rows[GROUP].to_pylist(), strict=True)
    return [found.get(key) or key for key in keys]


def identifiers(curate_dir: Path, manifest: Manifest, split: str) -> dict[str, set[str]]:
    """For each identifying column of the sidecars, the values in ``split``; absent columns are left out."""
    found: dict[str, set[str]] = {}
    for info in manifest.shards_of(split):
        table = read_columns(curate_dir, info, ("key", "sha256", GROUP))
        for name in table.column_names:
            values = table.column(name).drop_null().to_pylist()
            found.setdefault(name, set()).update(map(str, values))
    return found
