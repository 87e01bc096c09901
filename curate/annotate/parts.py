"""The files of the annotations: parts of some hundred images each, and what a part says of itself."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from curate.run import parquet

METADATA = b"darkroom"


LIST = "parts.json"  # in an annotation folder, the names of the last pass in order


_REMEDY = "delete it, and the same curation measures it again"


def current_parts(folder: Path) -> list[Path]:
    """The parts of the last pass that was finished, or all where none was."""
    try:
        listed = [folder / name for name in json.loads((folder / LIST).read_bytes())]
    except (FileNotFoundError, ValueError, TypeError):
        listed = []
    if listed and all(path.is_file() for path in listed):
        return listed
    return sorted(folder.glob("part-*.parquet"))


def part_head(path: Path) -> dict[str, Any]:
    """What a part says about itself in its footer; empty for one that is missing, damaged or not ours."""
    if not path.is_file():
        return {}
    try:
        return _head(pq.read_schema(path))
    except Exception as error:
        is_no_json = isinstance(error, ValueError)
        if not (is_no_json or parquet.is_damage(error)):
            raise
        return {}


def read_part(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """Some columns of a part, all for None.

    Raises:
        UserError: the part is damaged.
    """
    with reading_part(path):
        table = pq.read_table(path, columns=None if columns is None else list(columns))
        table.validate(full=True)  # or text that is no UTF-8 would raise wherever it is looked at
        return table


def reading_part(path: Path) -> AbstractContextManager[None]:
    """Raise ``UserError`` for what arrow says of a part whose bytes are no longer what was written."""
    return parquet.reporting_damage(path, _REMEDY)


def _head(schema: pa.Schema) -> dict[str, Any]:
    return json.loads((schema.metadata or {}).get(METADATA, b"{}"))
