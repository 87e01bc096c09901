"""Which trainings were given a picture, from the tables that they keep of it (see ``finetune.trained_on``)."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from curate.run import parquet

TABLE = "trained_on.parquet"  # in the folder of a training


def seen_by(root: Path, sha256: Collection[str]) -> dict[Path, dict[str, int]]:
    """How many of some files each training below a folder was given, by side of the split.

    Args:
        root: of the runs.
        sha256: of the files.

    Returns:
        By the training's folder; those that were given none of the files, or kept no table, are not in it.

    Raises:
        UserError: a table is damaged.
    """
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    found: dict[Path, dict[str, int]] = {}
    for path in sorted(root.glob(f"*/finetune/{TABLE}")):
        with parquet.reporting_damage(path, f"python -m curate.verify {path.parents[1]} says more"):
            rows = pq.read_table(
                path, columns=["sha256", "split"], filters=pc.field("sha256").isin([*sha256])
            )
        files = {(row["split"], row["sha256"]) for row in rows.to_pylist()}
        sides = [side for side, _ in files]
        if sides:
            found[path.parent] = {side: sides.count(side) for side in sorted(set(sides))}
    return found
