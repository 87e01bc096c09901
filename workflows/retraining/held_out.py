"""The pictures that any run of a series held out: they stay held out in all later ones."""

from __future__ import annotations

from pathlib import Path

from curate.decide import held_out
from workflows.retraining.series import Series

TABLE = "heldout_keys.parquet"


def settings(series: Series) -> list[str]:
    """What a curation of the series has to be given."""
    table = series.folder / TABLE
    return [f"split.held_out={table}"] if table.is_file() else []


def add(series: Series, run_dir: Path) -> None:
    """Add what a finished curation holds out; nothing is ever taken away."""
    table, new = series.folder / TABLE, held_out.held_out_table(run_dir / "curate")
    held_out.write(table, held_out.merged(held_out.read(table), new) if table.is_file() else new)
