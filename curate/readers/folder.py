"""A folder of images with their captions: text files beside them, or one metadata table."""

from __future__ import annotations

import csv
import json
import os
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

from curate.command import UserError
from curate.config import FolderConfig
from curate.images import UnreadableImage
from curate.readers import Listing
from curate.sample import Candidate, clean_caption, key_of

IMAGE_SUFFIXES = tuple(
    f".{name}"
    for name in (
        *("jpg", "jpeg", "jpe", "png", "webp", "bmp", "dib", "gif", "tif", "tiff"),
        *("avif", "jp2", "j2k", "ppm", "pgm", "tga"),
    )
)
CAPTION_SUFFIXES = (".txt", ".caption")
CAPTION_COLUMNS = ("text", "caption", "captions", "TEXT", "alt", "title")
METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")


def read(config: FolderConfig) -> Listing:
    """List the images below ``config.root``, hidden files aside, in the order of their paths.

    A metadata table at the root decides alone; otherwise each image is paired by its stem. As in
    kohya's scripts only the first line of a caption file counts.
    """
    root = Path(config.root)
    if not root.is_dir():
        raise FileNotFoundError(
            f"dataset.root={config.root} is no folder; type dataset.root=FOLDER, where FOLDER holds "
            "images with .txt or .caption files beside them, or a metadata.csv, .jsonl or .parquet"
        )
    table = next((root / name for name in METADATA if (root / name).is_file()), None)
    found = _from_metadata(root, table) if table else _from_files(root)
    if not found:
        raise UserError(
            f"{table or root} names no images; dataset.root=FOLDER takes one with pictures "
            f"({', '.join(IMAGE_SUFFIXES)}) or with a table that has rows"
        )
    stems = Counter(name.rpartition(".")[0] for name, _, _ in found)
    candidates = []
    for name, captions, columns in sorted(found, key=lambda row: row[0])[: config.limit]:
        stem = name.rpartition(".")[0]
        candidates.append(
            Candidate(
                key=key_of(stem if stem and stems[stem] == 1 else name),
                captions=captions,
                source=config.name,
                version=version_of(root / name),
                load=partial(read_bytes, root / name),
                columns={"file_name": name, **columns},
            )
        )
    return Listing(candidates)


def read_bytes(path: Path) -> bytes:
    """The file's bytes; a missing one is the data's fault."""
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise UnreadableImage("missing file") from error
    except OSError as error:
        raise UnreadableImage(f"cannot be read ({error.strerror})") from error


def version_of(path: Path) -> str:
    """Size and modification time, without reading; empty for a missing file."""
    try:
        status = path.stat()
    except OSError:
        return ""
    return f"{status.st_size}-{status.st_mtime_ns}"


_Row = tuple[str, tuple[str, ...], dict[str, Any]]


def _from_files(root: Path) -> list[_Row]:
    rows: list[_Row] = []
    for folder, subfolders, files in os.walk(root):
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        for file in files:
            path = Path(folder, file)
            if path.suffix.lower() in IMAGE_SUFFIXES and not file.startswith("."):
                rows.append((path.relative_to(root).as_posix(), _beside(path), {}))
    return rows


def _beside(path: Path) -> tuple[str, ...]:
    """The caption in the file beside the image; an empty file is an empty caption, none is none."""
    for suffix in CAPTION_SUFFIXES:
        try:
            text = path.with_suffix(suffix).read_text("utf-8-sig", errors="replace")
        except (FileNotFoundError, IsADirectoryError):
            continue
        return (clean_caption(text.partition("\n")[0]),)
    return ()


def _from_metadata(root: Path, table: Path) -> list[_Row]:
    try:
        records = _RECORDS[table.suffix](table)
    except (ValueError, csv.Error) as error:
        raise UserError(f"{table} cannot be read ({error}); mend it") from error
    names = list(dict.fromkeys(name for record in records for name in record))
    column = next((name for name in CAPTION_COLUMNS if name in names), None)
    if "file_name" not in names or column is None:
        raise UserError(
            f"{table} needs the columns 'file_name' and one of {', '.join(CAPTION_COLUMNS)}; "
            f"it has: {', '.join(map(str, names))}"
        )
    rest = [name for name in names if name not in ("file_name", column)]
    rows: list[_Row] = []
    for number, record in enumerate(records, start=1):
        name = record.get("file_name")
        if not isinstance(name, str) or not name:
            raise UserError(f"{table}: row {number} has no file_name; name its image or remove it")
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise UserError(f"{table}: file_name {name!r} leaves the folder; make it relative")
        rows.append((name, _captions(record.get(column)), _columns(record, rest)))
    return rows


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
    from curate.ledger import COLUMNS

    columns = {}
    for name in names:
        value = record.get(name)
        text = "" if _is_missing(value) else str(value)
        columns[f"source_{name}" if name in COLUMNS else name] = text
    return columns


def _is_missing(value: Any) -> bool:
    return value is None or value != value
