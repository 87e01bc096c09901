"""The annotation files: parts of some hundred images each, their footers, and how they are read."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from curate.annotate import stored_embeddings
from curate.run import parquet
from curate.run.files import read_json
from curate.run.schema import UserError

FORMAT = 4  # raise it when a measure changes its meaning: older parts are then measured again
METADATA = b"darkroom"  # the footer's key of what ``part_head`` gives
LIST = "parts.json"  # in an annotation folder: the names of the last pass's parts, in order

# Names in parts of earlier releases, which a source could use then; readers.columns reserves them now.
_OLD_COLUMNS = {"pixels": "pixels_sha256"}
_OLD_HEAD = {"gate": "prefilter"}

_REMEDY = "delete it, and the same curation measures it again"


def current_parts(folder: Path) -> list[Path]:
    """The parts of the last pass that finished, or all where none did.

    Raises:
        UserError: the list of that pass is damaged.
    """
    listed = [folder / name for name in _listed(folder / LIST)]
    if listed and all(path.is_file() for path in listed):
        return listed
    return sorted(folder.glob("part-*.parquet"))


def _listed(path: Path) -> list[str]:
    """The names in a list of parts; none where there is none."""
    if not path.is_file():
        return []
    if (content := read_json(path)) is not None and "parts" in content:
        return content["parts"]
    try:
        names = json.loads(path.read_bytes())  # earlier releases wrote the list alone
    except ValueError:
        names = None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise UserError(f"{path} is damaged; delete it, and the same curation writes it again")
    return names


def part_head(path: Path) -> dict[str, Any]:
    """What a part's footer says about it; empty for one that is missing, damaged or not ours. The whole is checked."""
    try:
        return read_head(path) if path.is_file() else {}
    except (FileNotFoundError, UserError):  # the first: another process has just deleted it
        return {}


def head_said(path: Path) -> dict[str, Any]:
    """As ``part_head``, of a part whose other bytes are checked where they are read."""
    try:
        return footer_head(path)
    except (FileNotFoundError, UserError):
        return {}


def read_head(path: Path) -> dict[str, Any]:
    """As ``part_head``, of a part that is there.

    Raises:
        UserError: it is damaged.
    """
    with reading_part(path):
        schema = pq.read_schema(path)
    try:
        return head_of(schema)
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}); {_REMEDY}") from error


def head_of(schema: pa.Schema) -> dict[str, Any]:
    """As ``part_head``, of a table that was read."""
    return _head_in(schema.metadata)


def _head_in(metadata: Mapping[bytes, bytes] | None) -> dict[str, Any]:
    head: dict[str, Any] = json.loads((metadata or {}).get(METADATA, b"{}"))
    return {_OLD_HEAD.get(name, name): value for name, value in head.items()}


def read_part(
    path: Path,
    columns: Collection[str] | None = None,
    without: Collection[str] = (),
    use_threads: bool = True,
) -> pa.Table:
    """Some columns of a part, in the order of the file, under today's names, with embeddings as today's.

    Args:
        path: of the part.
        columns: which; all for None.
        without: those to leave out.
        use_threads: whether Arrow shares the columns out among its threads.

    Raises:
        UserError: the part is damaged.
    """
    with reading_part(path), pq.ParquetFile(path) as part:
        stored = part.schema_arrow.names
        names = current_names(stored)
        asked = [
            name
            for name, current in names.items()
            if (columns is None or current in columns) and current not in without
        ]
        is_old = stored_embeddings.is_old(head_of(part.schema_arrow))
        wanted = stored_embeddings.read_for(asked) if is_old else asked
        table = part.read(None if wanted == stored else wanted, use_threads=use_threads)
        table.validate(full=True)  # or text that is no UTF-8 would raise wherever it is looked at
        if is_old:
            table = _upgraded(table)
        if table.column_names != asked:  # who asks Arrow for ``a`` is given ``a.b`` as well
            table = table.select(asked)
        renamed = table.rename_columns([names[name] for name in table.column_names])
        return renamed.replace_schema_metadata(table.schema.metadata)  # which renaming drops


def _upgraded(table: pa.Table) -> pa.Table:
    """What a part of an earlier release holds, and its head, as if it had been measured today."""
    head = head_of(table.schema) | {stored_embeddings.HEAD: stored_embeddings.Stored().head()}
    metadata = {**table.schema.metadata, METADATA: json.dumps(head).encode()}
    return stored_embeddings.upgraded(table).replace_schema_metadata(metadata)


def current_names(stored: Sequence[str]) -> dict[str, str]:
    """Today's name of each column of a part."""
    names = {name: _OLD_COLUMNS.get(name, name) for name in stored}
    both = {new: f"source_{new}" for old, new in _OLD_COLUMNS.items() if {old, new} <= {*stored}}
    return names | both


def footer(path: Path) -> pq.FileMetaData:
    """What a part's last bytes say of it; the others are not read, so damage to them does not show yet.

    Raises:
        UserError: the footer is damaged.
    """
    try:
        return pq.read_metadata(path)
    except Exception as error:
        if not parquet.is_damage(error):
            raise
        said = " ".join(str(error).split())
        raise UserError(f"{path} is damaged ({said}); {_REMEDY}") from error


def footer_head(path: Path) -> dict[str, Any]:
    """As ``read_head``, of a part whose other bytes are checked where they are read.

    Raises:
        UserError: the footer is damaged.
    """
    try:
        return _head_in(footer(path).metadata)
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}); {_REMEDY}") from error


def reading_part(path: Path) -> AbstractContextManager[None]:
    """Raise ``UserError`` for what Arrow says of a part whose bytes are no longer what was written."""
    return parquet.reporting_damage(path, _REMEDY)
