"""One table that names a folder's images and their captions, as Hugging Face's ``imagefolder`` has it."""

from __future__ import annotations

import csv
import json
from pathlib import Path, PurePosixPath
from typing import Any

from curate.command import UserError
from curate.ledger import COLUMNS
from curate.readers.sidecars import Row
from curate.sample import clean_caption

NAMES = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
CAPTION_COLUMNS = ("text", "caption", "captions", "TEXT", "alt", "title")


def read(table: Path) -> tuple[list[Row], list[str]]:
    """The images that ``table`` names, and notes; records of the same image are its several captions.

    Raises:
        UserError: the table cannot be read, lacks a column, or names a file outside its folder.
    """
    try:
        records = _RECORDS[table.suffix](table)
    except PermissionError:
        raise
    except (ValueError, OSError, csv.Error) as error:
        raise UserError(
            f"{table} cannot be read ({error}); mend it, or save it as UTF-8"
        ) from error
    if not records:
        return [], []
    names = list(dict.fromkeys(name for record in records for name in record))
    column = next((name for name in CAPTION_COLUMNS if name in names), None)
    if "file_name" not in names or column is None:
        raise UserError(
            f"{table} needs the columns 'file_name' and one of {', '.join(CAPTION_COLUMNS)}; "
            f"it has: {', '.join(map(str, names))}"
        )
    rest = [name for name in names if name not in ("file_name", column)]
    rows: dict[str, Row] = {}
    differing: set[str] = set()
    for number, record in enumerate(records, start=1):
        name, columns = _file_name(table, number, record), _columns(record, rest)
        _, captions, first = rows.setdefault(name, (name, (), columns))
        captions = tuple(dict.fromkeys(captions + _captions(record.get(column))))
        rows[name] = (name, captions, first)
        if columns != first:
            differing.add(name)
    return list(rows.values()), _notes(differing, rest)


def _notes(differing: set[str], columns: list[str]) -> list[str]:
    if not differing:
        return []
    return [
        f"images whose records differ in {', '.join(columns)}, of which the first record counts: "
        f"{len(differing)}, such as {min(differing)}"
    ]


def _file_name(table: Path, number: int, record: dict[str, Any]) -> str:
    name = record.get("file_name")
    if not isinstance(name, str) or not name:
        raise UserError(
            f"{table}: record {number} has no file_name; name its image or remove the record"
        )
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise UserError(
            f"{table}: file_name {name!r} of record {number} leaves the folder; make it relative"
        )
    return PurePosixPath(name).as_posix()  # ./a.png is a.png


def _from_csv(table: Path) -> list[dict[str, Any]]:
    """Rows of text: "None", "NA" and "7" are captions. An empty field is a missing value."""
    with table.open(encoding="utf-8-sig", newline="") as stream:
        reader = csv.DictReader(stream)
        records: list[dict[str, Any]] = []
        for record in reader:
            if None in record:
                raise ValueError(
                    f"line {reader.line_num} has more fields than the header; quote what holds a comma"
                )
            records.append({name: value or None for name, value in record.items()})
    return records


def _from_jsonl(table: Path) -> list[dict[str, Any]]:
    records = []
    with table.open(encoding="utf-8-sig") as stream:
        for number, line in enumerate(stream, start=1):
            if not line.strip():
                continue
            try:
                record = json.loads(line)
            except ValueError as error:
                raise ValueError(f"line {number}: {error}") from error
            if not isinstance(record, dict):
                raise ValueError(f"line {number} is no JSON object")
            records.append(record)
    return records


def _from_parquet(table: Path) -> list[dict[str, Any]]:
    import pyarrow.parquet as pq

    return pq.read_table(table).to_pylist()


_RECORDS = {".csv": _from_csv, ".jsonl": _from_jsonl, ".parquet": _from_parquet}


def _captions(value: Any) -> tuple[str, ...]:
    """One caption, or a list of them; a missing value is none, a number its digits."""
    items = value if isinstance(value, list) else [value]
    return tuple(clean_caption(str(item)) for item in items if not _is_missing(item))


def _columns(record: dict[str, Any], names: list[str]) -> dict[str, str]:
    """Further columns as text, named so that they never hide one of the ledger's own."""
    columns = {}
    for name in names:
        value = record.get(name)
        text = "" if _is_missing(value) else str(value)
        columns[f"source_{name}" if name in COLUMNS else name] = text
    return columns


def _is_missing(value: Any) -> bool:
    return value is None or value != value
