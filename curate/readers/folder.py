"""A folder of images with their captions: text files beside them, or one metadata table."""

from __future__ import annotations

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
    import pandas as pd

    readers = {".csv": pd.read_csv, ".parquet": pd.read_parquet}
    if table.suffix == ".jsonl":
        frame = pd.read_json(table, lines=True, dtype=False)
    else:
        frame = readers[table.suffix](table)
    column = next((name for name in CAPTION_COLUMNS if name in frame), None)
    if "file_name" not in frame or column is None:
        raise UserError(
            f"{table} needs the columns 'file_name' and one of {', '.join(CAPTION_COLUMNS)}; "
            f"it has: {', '.join(map(str, frame.columns))}"
        )
    rest = [name for name in frame.columns if name not in ("file_name", column)]
    rows: list[_Row] = []
    for values in frame.itertuples(index=False):
        record = dict(zip(frame.columns, values, strict=True))
        name = str(record["file_name"])
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise UserError(f"{table}: file_name {name!r} leaves the folder; make it relative")
        rows.append((name, _captions(record[column]), _columns(record, rest)))
    return rows


def _captions(value: Any) -> tuple[str, ...]:
    """One caption, or a list of them; a missing value is none."""
    if isinstance(value, str):
        return (clean_caption(value),)
    if hasattr(value, "__iter__"):
        return tuple(clean_caption(str(item)) for item in value)
    return ()


def _columns(record: dict[str, Any], names: list[str]) -> dict[str, str]:
    """Further columns as text, named so that they never hide one of the ledger's own."""
    from curate.ledger import COLUMNS

    return {f"source_{name}" if name in COLUMNS else str(name): str(record[name]) for name in names}
