"""The ledger: one row for every input pair, kept or not, with the reason."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curate.run import parquet
from curate.run.files import atomic_write, remove_parts
from curate.run.finished import curate_again
from curate.run.parquet import reporting_damage

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

ROWS_PER_PART = 100_000
KEPT, DROPPED, UNREADABLE = "kept", "dropped", "unreadable"

COLUMNS = (
    "key",
    "caption_index",
    "source",
    "caption",
    "width",
    "height",
    "format",
    "bytes",
    "sha256",
    "phash",
    "phash_mirrored",
    "clip_similarity",
    "clip_model",
    "kept",
    "rule",
    "reason",
    "status",
    "split",
    "duplicate_group",  # never divided by the split: copies and siblings
    "copy_group",  # the copies alone, which a removal takes together
    "duplicate_of",
    "shard",
    "location",
)


HELD_OUT_BY = "held_out_by"
"""Only where ``split.held_out`` named a table: the key of the picture by which a group is held out again, or ""."""


def copy(paths: Sequence[Path], folder: Path) -> None:
    """Copy the files of a ledger to ``folder`` and remove parts of an earlier, longer one."""
    copies = [folder / path.name for path in paths]
    for path, copied in zip(paths, copies, strict=True):
        with path.open("rb") as content, atomic_write(copied) as stream:
            shutil.copyfileobj(content, stream)
    for stale in set(folder.glob("part-*.parquet")) - set(copies):
        stale.unlink()
    remove_parts(folder)


def write_part(path: Path, rows: pd.DataFrame, schema: pa.Schema) -> None:
    """Write one file of the ledger; all have one ``schema``, so that any reader takes the folder whole."""
    import pyarrow as pa

    table = pa.Table.from_pandas(rows, schema, preserve_index=False)
    # Or parquet's pages would end where parts of the annotations do.
    parquet.write_table(path, table.combine_chunks())


def parts(curate_dir: Path) -> list[Path]:
    """The files of a run's ledger, in the order of the input.

    Raises:
        FileNotFoundError: there is none yet.
    """
    found = sorted((curate_dir / "ledger").glob("part-*.parquet"))
    if not found:
        raise FileNotFoundError(f"{curate_dir} holds no ledger; {_remedy(curate_dir)}")
    return found


def read(
    curate_dir: Path, columns: Sequence[str] | None = None, filters: list[Any] | None = None
) -> pd.DataFrame:
    """The ledger of a run, one row per input pair, in the order of the input.

    Args:
        curate_dir: the run's curation.
        columns: those to read, if the ledger has them; None for all.
        filters: which rows, as ``pandas.read_parquet`` takes them; None for all.

    Raises:
        FileNotFoundError: the run has none yet.
        UserError: a part is damaged.
    """
    import pandas as pd

    paths = parts(curate_dir)
    check_parts(paths)
    return pd.concat([read_part(path, columns, filters) for path in paths], ignore_index=True)


def check_parts(paths: Sequence[Path]) -> None:
    """Check many files of a ledger at once, for readers that take one after the other.

    Raises:
        UserError: one is damaged.
    """
    for path in parquet.check_ahead(paths)[:1]:
        raise parquet.damaged(path, _remedy(path.parents[1]))


def columns(curate_dir: Path) -> list[str]:
    """The names of the columns of a run's ledger, in order.

    Raises:
        FileNotFoundError: the run has none yet.
        UserError: a part is damaged.
    """
    named = dict.fromkeys(name for path in parts(curate_dir) for name in schema(path).names)
    return list(named)


def read_part(
    path: Path, columns: Sequence[str] | None = None, filters: list[Any] | None = None
) -> pd.DataFrame:
    """One file of the ledger; see ``read``."""
    import pandas as pd

    present = schema(path).names
    wanted = None if columns is None else [name for name in columns if name in present]
    with reporting_damage(path, lambda: _remedy(path.parents[1])):
        return pd.read_parquet(path, columns=wanted, filters=filters)


def schema(path: Path) -> pa.Schema:
    """Of one file of the ledger."""
    import pyarrow.parquet as pq

    with reporting_damage(path, lambda: _remedy(path.parents[1])):
        return pq.read_schema(path)


def why(row: Mapping[str, Any] | pd.Series) -> str:
    """Why a row is not kept: its reason, and the rule where that does not begin with its name; older ledgers have none."""
    rule, reason = row.get("rule"), str(row["reason"])
    known = isinstance(rule, str) and rule and not reason.startswith(rule)
    return f"{reason} (rule {rule})" if known else reason


def _remedy(curate_dir: Path) -> str:
    return curate_again(curate_dir.parent)
