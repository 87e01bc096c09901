"""A folder's metadata table, which names its images and their captions: Hugging Face's ``imagefolder`` or kohya's JSON."""

from __future__ import annotations

import csv
import json
from pathlib import Path, PurePosixPath
from typing import Any

from curate.readers.columns import CAPTION_NAMES, captions_in, flat, is_missing
from curate.readers.csv_delimiter import detect_delimiter
from curate.readers.files import IMAGE_SUFFIXES, images_below, local_name
from curate.readers.folder.caption_files import Row
from curate.readers.json_object import json_object
from curate.run.schema import UserError

NAMES = ("metadata.csv", "metadata.jsonl", "metadata.parquet", "metadata.json")
FILE_COLUMNS = ("file_name", "file_names", "image_file_name", "image_file_names", "image_path")


def read(table: Path) -> tuple[list[Row], list[str]]:
    """The images that ``table`` names, and notes. Several records of one image give it several captions.

    Raises:
        UserError: the table cannot be read, lacks a column, or names a file outside its folder.
    """
    try:
        records = _RECORDS[table.suffix](table)
    except PermissionError:
        raise
    except UnicodeDecodeError as error:
        raise UserError(
            f"{table} is not UTF-8 ({error}); save it as UTF-8 (Excel: CSV UTF-8), or convert it, for "
            "instance with: iconv -f WINDOWS-1252 -t UTF-8"
        ) from error
    except (ValueError, RecursionError, OSError, csv.Error) as error:
        raise UserError(f"{table} cannot be read ({error}); repair it") from error
    if not records:
        return [], []
    names = list(dict.fromkeys(name for record in records for name in record))
    column = next((name for name in CAPTION_NAMES if name in names), None)
    file_column = _file_column(names)
    if file_column is None or column is None:
        raise UserError(
            f"{table} needs the columns 'file_name' and one of {', '.join(CAPTION_NAMES)}; "
            f"it has: {', '.join(map(str, names))}"
        )
    return _joined(table, records, file_column, column)


def _joined(
    table: Path, records: list[dict[str, Any]], file_column: str, column: str
) -> tuple[list[Row], list[str]]:
    """One row for each image, however many records it has, and notes on what was not used."""
    names = dict.fromkeys(name for record in records for name in record)
    rest = [name for name in names if name not in (file_column, column)]
    rows: dict[str, Row] = {}
    differing: set[str] = set()
    repeated: set[str] = set()
    for number, record in enumerate(records, start=1):
        columns, new = _columns(record, rest), captions_in(record.get(column))
        for name in _file_names(table, number, record.get(file_column)):
            _, captions, first = rows.setdefault(name, (name, (), columns))
            rows[name] = (name, tuple(dict.fromkeys(captions + new)), first)
            if columns != first:
                differing.add(name)
            elif new and set(new) <= set(captions):
                repeated.add(name)
    found = {
        f"images whose records differ in {', '.join(rest)}; the first record counts": differing,
        "images with a record that repeats an earlier one": repeated,
    }
    return list(rows.values()), [
        f"{what}: {len(which)}, such as {min(which)}" for what, which in found.items() if which
    ]


def _file_column(names: list[str]) -> str | None:
    """The column that names the images: a known name, or the only one that ends in ``_file_name``."""
    known = [name for name in FILE_COLUMNS if name in names]
    others = [name for name in names if name.endswith(("_file_name", "_file_names"))]
    return next(iter(known), others[0] if len(others) == 1 else None)


def _file_names(table: Path, number: int, value: Any) -> list[str]:
    """The images of a record, one or a list of them, relative to the table's folder."""
    names = value if isinstance(value, list) else [value]
    if not names or not all(isinstance(name, str) and name.strip() for name in names):
        raise UserError(
            f"{table}: record {number} has no file_name; add the image's name or remove the record"
        )
    return [_below(table, number, Path(local_name(table.parent, name))) for name in names]


def _below(table: Path, number: int, path: Path) -> str:
    folder = table.parent.absolute()
    path = path.relative_to(folder) if path.is_relative_to(folder) else path
    if path.is_absolute() or ".." in path.parts:
        raise UserError(
            f"{table}: file_name '{path}' of record {number} is outside the table's folder; name "
            "images in that folder or below it"
        )
    return PurePosixPath(path).as_posix()  # ./a.png becomes a.png


def _from_csv(table: Path) -> list[dict[str, Any]]:
    """Fields stay text, so that "None", "NA" and "7" are captions; an empty field is a missing value."""
    with table.open(encoding="utf-8-sig", newline="") as stream:
        lines, delimiter = detect_delimiter(stream)
        reader = csv.DictReader(lines, delimiter=delimiter)
        records: list[dict[str, Any]] = []
        for record in reader:
            if None in record:
                raise ValueError(
                    f"line {reader.line_num} has more fields than the header; quote fields that contain a comma"
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
                records.append(json_object(line))
            except ValueError as error:
                raise ValueError(f"line {number}: {error}") from error
    return records


def _from_parquet(table: Path) -> list[dict[str, Any]]:
    import pyarrow.parquet as pq

    return pq.read_table(table).to_pylist()


def _from_json(table: Path) -> list[dict[str, Any]]:
    """kohya's ``{image_key: {caption, tags, ...}}``, or a list of records.

    An image key is a path with or without its suffix. As in kohya's scripts, the tags are appended
    to the caption after a comma, or are the caption where there is none.
    """
    content = json.loads(table.read_text(encoding="utf-8-sig"))
    if isinstance(content, dict):
        images = {name.rpartition(".")[0]: name for name in sorted(images_below(table.parent))}
        below = f"{table.parent.absolute()}/"
        keys = {key: local_name(table.parent, key).removeprefix(below) for key in content}
        content = [_of_kohya(keys[key], record, images) for key, record in content.items()]
    if not isinstance(content, list) or not all(isinstance(record, dict) for record in content):
        raise ValueError("neither {image: {caption: ...}} nor a list of records")
    return content


def _of_kohya(key: str, record: Any, images: dict[str, str]) -> dict[str, Any]:
    if not isinstance(record, dict):
        raise ValueError(f"{key!r} is not followed by a record of caption and tags")
    tags = record.get("tags") or ""
    captions = captions_in(record.get("caption"))
    joined = [f"{caption}, {tags}" if tags else caption for caption in captions]
    is_path = Path(key).suffix.lower() in IMAGE_SUFFIXES
    rest = {name: value for name, value in record.items() if name not in ("caption", "tags")}
    return {
        "file_name": key if is_path else images.get(key, key),
        "caption": joined or tags or None,
        **rest,
    }


_RECORDS = {
    ".csv": _from_csv,
    ".jsonl": _from_jsonl,
    ".parquet": _from_parquet,
    ".json": _from_json,
}


def _columns(record: dict[str, Any], names: list[str]) -> dict[str, str]:
    """Further columns as text, under names that the ledger does not use itself."""
    values = {name: record.get(name) for name in names}  # all, so that names agree between records
    filled = {name: "" if is_missing(value) else value for name, value in values.items()}
    return {name: str(value) for name, value in flat(filled).items()}
