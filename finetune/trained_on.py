"""``trained_on.parquet``: which pictures a training was given, each with its side of the split.

Shards and ledger of a curation follow its removals, so that they no longer say what a removed picture was used
for; a training that was given it has it in its weights all the same. This table stays as it was written. It
holds hashes and keys, no captions and no pictures.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from curate.run import parquet
from curate.run.finished import to_mend
from curate.run.joined import owner_of
from curate.run.manifest import Manifest, ShardInfo
from curate.run.schema import UserError
from curate.run.seen_by import TABLE
from finetune.sidecars import read_columns

if TYPE_CHECKING:
    import pyarrow as pa

FILE = TABLE
_SHARDS = b"darkroom.shards"  # key of the footer's metadata


def table(curate_dir: Path, manifest: Manifest, shards: str, run: str = "") -> pa.Table:
    """A row for each picture of all splits.

    Args:
        curate_dir: of the curation, whose tables beside the shards are read.
        manifest: its own.
        shards: what stands for the data in the identity of the training's checkpoints, see
            :func:`finetune.doctor.identity`; it is kept in the table's metadata.
        run: whose curation it is; "" is the training's own, so that equal trainings have equal tables. Of a
            folder that joins several (``curate.run.joined``) each picture has the one that it is from.

    Returns:
        The columns ``key, sha256, source, split, shard, run`` (text) and ``captions``, their number.

    Raises:
        UserError: a table is damaged; says what to type.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    def whose(info: ShardInfo) -> str:
        owner = owner_of(curate_dir, info.path)
        return run if owner == curate_dir else owner.parent.name

    parts = [_empty()]
    for info in manifest.shards:
        rows = read_columns(curate_dir, info, ("key", "sha256", "source", "captions"))
        known, count = set(rows.column_names), len(rows)

        def text(name: str, rows: pa.Table = rows, known: set[str] = known) -> pa.Array:
            found = rows[name] if name in known else pa.array([""] * len(rows))
            return pc.fill_null(found.cast(pa.string()), "")

        captions = (
            pc.call_function("list_value_length", [rows["captions"]])
            if "captions" in known
            else [1] * count
        )
        columns = {
            "key": text("key"),
            "sha256": text("sha256"),
            "source": text("source"),
            "split": [info.split] * count,
            "shard": [info.path] * count,
            "run": [whose(info)] * count,
            "captions": captions,
        }
        parts.append(pa.table(columns).cast(_empty().schema))
    return pa.concat_tables(parts).replace_schema_metadata({_SHARDS: shards})


def _empty() -> pa.Table:
    import pyarrow as pa

    texts = [pa.field(name, pa.string()) for name in ("key", "sha256", "source")]
    texts += [pa.field(name, pa.string()) for name in ("split", "shard", "run")]
    return pa.schema([*texts, pa.field("captions", pa.int32())]).empty_table()


def write(finetune_dir: Path, curate_dir: Path, manifest: Manifest, shards: str) -> None:
    """Write the table of a training that is about to start or go on; see :func:`table`."""
    run = curate_dir.parent.name
    other = "" if run == finetune_dir.parent.name else run
    parquet.write_table(finetune_dir / FILE, table(curate_dir, manifest, shards, other))


def read(finetune_dir: Path) -> tuple[pa.Table, str] | None:
    """The table, and what stands for the data in it; None where a training wrote none.

    Raises:
        UserError: it is damaged.
    """
    import pyarrow.parquet as pq

    path = finetune_dir / FILE
    if not path.is_file():
        return None
    again = to_mend(
        finetune_dir.parent,
        "train with the same command as before, which writes it again while its data are as they were",
    )
    with parquet.reporting_damage(path, again):
        found = pq.read_table(path)
    shards = (found.schema.metadata or {}).get(_SHARDS)
    if shards is None:
        raise UserError(f"{path} is no table of a training; {again}")
    return found, shards.decode()


def removed_since(finetune_dir: Path, curate_dir: Path, shards: str) -> pa.Table | None:
    """What was taken out of a curation since a training was given it, as rows of :func:`table`.

    Args:
        finetune_dir: of the training, which wrote its table. curate_dir: of the curation.
        shards: what stood for the data then.

    Returns:
        None where that does not explain the difference: the training wrote no table of these data, or the
        curation holds a picture, or has one on a side, that it had not then.

    Raises:
        UserError: a table is damaged.
    """
    import pyarrow as pa

    from curate.run.manifest import old_manifest

    given, manifest = read(finetune_dir), old_manifest(curate_dir)
    if given is None or given[1] != shards or manifest is None:
        return None
    then, now = given[0], table(curate_dir, manifest, "")
    left, before = _places(now), _places(then)
    if not set(left) <= set(before):
        return None
    there = set(left)
    return then.filter(pa.array([place not in there for place in before], pa.bool_()))


def _places(rows: pa.Table) -> list[tuple[str, str, str]]:
    """Key, file and side of each picture."""
    return list(zip(*(rows[name].to_pylist() for name in ("key", "sha256", "split")), strict=True))
