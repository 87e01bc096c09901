"""A folder's metadata table, which names its images and their captions: Hugging Face's ``imagefolder`` or kohya's JSON."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from curate.readers.columns import CAPTION_NAMES, captions_in, encodable, flat, is_missing, twice
from curate.readers.csv_delimiter import detect_delimiter
from curate.readers.files import IMAGE_SUFFIXES, local_name
from curate.readers.folder.caption_files import Row
from curate.readers.folder.spelling import meet
from curate.readers.json_object import json_object, unique_fields
from curate.readers.text_encoding import TextDecoder
from curate.run.schema import UserError

NAMES = ("metadata.csv", "metadata.jsonl", "metadata.parquet", "metadata.json")
FILE_COLUMNS = ("file_name", "file_names", "image_file_name", "image_file_names", "image_path")


@dataclass
class Table:
    """A metadata table, the files that it may name, and what was noted while it was read.

    Attributes:
        path: of the table.
        files: the visible files of its folder and below, relative to it.
        encoding: of a table that is not UTF-8; None detects it.
        notes: complete after `read`.
    """

    path: Path
    files: Collection[str]
    encoding: str | None = None
    notes: list[str] = field(default_factory=list)


def read(table: Table) -> list[Row]:
    """The images that ``table`` names. Several records of one image give it several captions.

    Raises:
        UserError: the table cannot be read, lacks a column, or names a file outside its folder.
    """
    try:
        records = _RECORDS[table.path.suffix](table)
    except (PermissionError, UserError):
        raise
    except (ValueError, RecursionError, OSError, csv.Error) as error:
        raise UserError(f"{table.path} cannot be read ({error}); repair it") from error
    if not records:
        return []
    names = list(dict.fromkeys(name for record in records for name in record))
    column = next((name for name in CAPTION_NAMES if name in names), None)
    file_column = _file_column(names)
    if file_column is None or column is None:
        raise UserError(
            f"{table.path} needs the columns 'file_name' and one of {', '.join(CAPTION_NAMES)}; "
            f"it has: {', '.join(map(str, names))}"
        )
    return _joined(table, records, file_column, column)


def _joined(
    table: Table, records: list[dict[str, Any]], file_column: str, column: str
) -> list[Row]:
    """One row for each image, however many records it has."""
    names = dict.fromkeys(name for record in records for name in record)
    rest = [name for name in names if name not in (file_column, column)]
    written = [
        _file_names(table.path, number, record.get(file_column))
        for number, record in enumerate(records, start=1)
    ]
    meant = _meant(table, [name for names in written for name in names])
    rows: dict[str, Row] = {}
    differing: set[str] = set()
    repeated: set[str] = set()
    for record, files in zip(records, written, strict=True):
        columns, new = _columns(record, rest), captions_in(record.get(column))
        for name in (meant.get(file, file) for file in files):
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
    table.notes += [
        f"{what}: {len(which)}, such as {min(which)}" for what, which in found.items() if which
    ]
    return list(rows.values())


def _meant(table: Table, written: Iterable[str]) -> dict[str, str]:
    """The file that each name means: see `meet`; else the only one that it means without the folder's own name."""
    written = list(dict.fromkeys(written))
    found = meet(written, table.files)
    respelled = {name for name, file in found.items() if file != name}
    short = {name: _without_folder(table.path, name) for name in written if name not in found}
    times = Counter(short.values())
    unique = {rest: name for name, rest in short.items() if rest and times[rest] == 1}
    inside = meet(unique, set(table.files) - set(found.values())) if unique else {}
    notes = {
        "file names in another spelling than the file's": respelled,
        f"file names that repeat the folder's own name, although they are relative to {table.path.name}": {
            unique[rest] for rest in inside
        },
    }
    table.notes += [
        f"{what}: {len(names)}, such as {encodable(min(names))}"
        for what, names in notes.items()
        if names
    ]
    return found | {unique[rest]: file for rest, file in inside.items()}


def _without_folder(table: Path, name: str) -> str:
    """``name`` without the last parts of the folder's path, if it begins with them; else ""."""
    folder, parts = table.parent.absolute().parts, PurePosixPath(name).parts
    for count in range(1, min(len(folder), len(parts))):
        if parts[:count] == folder[-count:]:
            return PurePosixPath(*parts[count:]).as_posix()
    return ""


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


def _text(table: Table) -> str:
    """The table's text, with a note if its encoding was guessed.

    Raises:
        UserError: no encoding fits.
    """
    data = table.path.read_bytes()
    found = TextDecoder(table.encoding, data.splitlines).decode(data)
    if not found.encoding:
        raise UserError(
            f"{table.path} is not UTF-8, and it is not certain what it is; save it as UTF-8 (Excel: CSV "
            "UTF-8), or type dataset.encoding=NAME, such as cp1252, shift_jis or gb18030"
        )
    if not table.encoding and not found.encoding.startswith("utf"):
        table.notes.append(
            f"{table.path.name} is not UTF-8 and was read as {found.encoding}; dataset.encoding=NAME names "
            "another encoding"
        )
    return found.text


def _refuse_twice(table: Table, columns: Iterable[str]) -> None:
    if repeated := twice(columns):
        raise UserError(f"{table.path} has two columns of one name: {repeated}; rename one")


def _from_csv(table: Table) -> list[dict[str, Any]]:
    """Fields stay text, so that "None", "NA" and "7" are captions; an empty field is a missing value."""
    lines, delimiter = detect_delimiter(io.StringIO(_text(table), newline=""))
    reader = csv.DictReader(lines, delimiter=delimiter)
    _refuse_twice(table, reader.fieldnames or ())
    records: list[dict[str, Any]] = []
    for record in reader:
        if None in record:
            raise ValueError(
                f"line {reader.line_num} has more fields than the header; quote fields that contain a comma"
            )
        records.append({name: value or None for name, value in record.items()})
    return records


def _from_jsonl(table: Table) -> list[dict[str, Any]]:
    records = []
    for number, line in enumerate(io.StringIO(_text(table)), start=1):
        if not line.strip():
            continue
        try:
            records.append(json_object(line, unique_fields))
        except ValueError as error:
            raise ValueError(f"line {number}: {error}") from error
    return records


def _from_parquet(table: Table) -> list[dict[str, Any]]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(table.path) as file:
        _refuse_twice(table, file.schema_arrow.names)
        return file.read().to_pylist()


def _from_json(table: Table) -> list[dict[str, Any]]:
    """kohya's ``{image_key: {caption, tags, ...}}``, or a list of records.

    An image key is a path with or without its suffix. As in kohya's scripts, the tags are appended
    to the caption after a comma, or are the caption where there is none.
    """
    content = json.loads(_text(table), object_pairs_hook=unique_fields)
    if isinstance(content, dict):
        below = f"{table.path.parent.absolute()}/"
        keys = {key: local_name(table.path.parent, key).removeprefix(below) for key in content}
        images = _images_by_key(table, keys.values())
        content = [_of_kohya(images[keys[key]], key, record) for key, record in content.items()]
    if not isinstance(content, list) or not all(isinstance(record, dict) for record in content):
        raise ValueError("neither {image: {caption: ...}} nor a list of records")
    return content


def _images_by_key(table: Table, keys: Iterable[str]) -> dict[str, str]:
    """The image of each key without a suffix, if exactly one has this name; else the key."""
    keys = list(keys)
    images = [name for name in table.files if name.lower().endswith(IMAGE_SUFFIXES)]
    times = Counter(name.rpartition(".")[0] for name in images)
    stems = {stem: name for name in images if times[stem := name.rpartition(".")[0]] == 1}
    found = meet([key for key in keys if not key.lower().endswith(IMAGE_SUFFIXES)], stems)
    return {key: stems[found[key]] if key in found else key for key in keys}


def _of_kohya(image: str, key: str, record: Any) -> dict[str, Any]:
    if not isinstance(record, dict):
        raise ValueError(f"{key!r} is not followed by a record of caption and tags")
    tags = record.get("tags") or ""
    captions = captions_in(record.get("caption"))
    joined = [f"{caption}, {tags}" if tags else caption for caption in captions]
    rest = {name: value for name, value in record.items() if name not in ("caption", "tags")}
    return {"file_name": image, "caption": joined or tags or None, **rest}


_RECORDS: dict[str, Callable[[Table], list[dict[str, Any]]]] = {
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
