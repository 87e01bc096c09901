"""A folder of images with their captions: text files beside them, or metadata tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from curate.readers.candidate import Candidate, key_of
from curate.readers.columns import encodable
from curate.readers.files import (
    ARCHIVE_SUFFIXES,
    CAPTION_SUFFIXES,
    IMAGE_SUFFIXES,
    UNREAD_ARCHIVES,
    files_below,
    is_file,
    loader,
    relative_files,
    version_of,
)
from curate.readers.folder import FolderConfig, caption_files, metadata
from curate.readers.folder.caption_files import Row
from curate.readers.source import Source
from curate.run.schema import UserError


def read(config: FolderConfig) -> Source:
    """List the images below ``config.root`` in the order of their paths, without hidden files.

    In a folder with a metadata table, and below it, only the images that the table names are read.
    Elsewhere an image's caption is in the text file with the same stem or name.

    Raises:
        FileNotFoundError: the root is not there.
        UserError: a table cannot be used, or there are no images.
    """
    root = Path(config.root)
    if root.is_file():
        raise FileNotFoundError(
            f"dataset.root={config.root} is a file; type the folder that it is in: dataset.root={root.parent}"
        )
    if not root.is_dir():
        raise FileNotFoundError(
            f"dataset.root={config.root} is not a folder; type dataset.root=FOLDER, where FOLDER holds "
            "images with .txt or .caption files beside them, or a metadata.csv, .jsonl, .parquet or .json"
        )
    rows, notes = _rows_and_notes(root, config.encoding)
    if not rows:
        remedy = f"type dataset.root=FOLDER with a folder of pictures ({', '.join(IMAGE_SUFFIXES)})"
        raise UserError("; ".join([f"{root} holds no images", *notes, remedy]))
    names = {name for name, _, _ in rows}
    stems = Counter(name.rpartition(".")[0] for name, _, _ in rows)
    candidates = []
    for name, captions, columns in sorted(rows, key=lambda row: row[0]):
        stem = name.rpartition(".")[0]
        is_unique = stem and stems[stem] == 1 and stem not in names
        candidates.append(
            Candidate(
                key=key_of(stem if is_unique else name),
                captions=captions,
                source=config.name,
                location=name,
                version=version_of(root / name),
                columns={"file_name": name, **columns},
            )
        )
    return Source.of(candidates, loader(root), notes)


def files_read(config: FolderConfig) -> Iterator[Path]:
    """The files that `read` opens or lists as images; no caption is read for it.

    Raises:
        UserError: a table cannot be used.
    """
    root = Path(config.root)
    tables = _tables(root)
    found = list(caption_files.files_read(root, [table.parent for table in tables]))
    for table in tables:
        rows, _ = _from_table(root, table, config.encoding)
        found += [table, *(root / name for name, _, _ in rows)]
    yield from (path for path in found if encodable(path.name) == path.name)


def _rows_and_notes(root: Path, encoding: str | None) -> tuple[list[Row], list[str]]:
    """The images that tables name and those with caption files, and notes on what was not used."""
    tables = _tables(root)
    rows, notes = caption_files.read(root, [table.parent for table in tables], encoding)
    for table in tables:
        named, remarks = _from_table(root, table, encoding)
        rows += named
        notes += remarks if named else [f"{table} names no images", *remarks]
    rows, garbled = _with_utf8_names(rows)
    return rows, notes + garbled


def _tables(root: Path) -> list[Path]:
    """The metadata table of each folder that has one, in the order of their paths.

    Tables below the folder of another table are not read.
    """
    found: dict[Path, Path] = {}
    named = [path for path in files_below(root) if path.name in metadata.NAMES]
    for path in sorted(named, key=lambda path: (path.parent, metadata.NAMES.index(path.name))):
        found.setdefault(path.parent, path)
    return [table for folder, table in found.items() if set(folder.parents).isdisjoint(found)]


def _with_utf8_names(rows: list[Row]) -> tuple[list[Row], list[str]]:
    """The rows whose file names are UTF-8, and a note on the others."""
    garbled = {name for name, _, _ in rows if encodable(name) != name}
    if not garbled:
        return rows, []
    note = (
        "images left out because their names are not UTF-8 (rename them, for instance with convmv)"
    )
    return (
        [row for row in rows if row[0] not in garbled],
        [f"{note}: {len(garbled)}, such as {encodable(min(garbled))}"],
    )


def _from_table(root: Path, path: Path, encoding: str | None) -> tuple[list[Row], list[str]]:
    """The images that the table at ``path`` names, with paths below ``root``, and notes on files it replaces."""
    below = path.parent.relative_to(root)
    found = relative_files(path.parent)
    table = metadata.Table(path, found, encoding)
    rows = metadata.read(table)
    named = {name for name, _, _ in rows}
    archives = {name for name in found if name.lower().endswith(ARCHIVE_SUFFIXES)}
    if archives and named and not any(is_file(path.parent / name) for name in named):
        raise UserError(
            f"none of the {len(named)} images that {path} names is there, but {min(archives)} is: the images "
            f"are probably still inside. Unpack it in {path.parent}, then type the same command again"
        )
    unused = {
        f"images not named in {path.name}": (
            {name for name in found if name.lower().endswith(IMAGE_SUFFIXES)} - named
        ),
        f"caption files and tables not used because of {path.name}": {
            name
            for name in found
            if name.lower().endswith(CAPTION_SUFFIXES)
            or (name in metadata.NAMES and name != path.name)
        },
        UNREAD_ARCHIVES: archives - named,
    }
    placed = [((below / name).as_posix(), captions, columns) for name, captions, columns in rows]
    return placed, table.notes + [
        f"{what}: {len(names)}, such as {encodable((below / min(names)).as_posix())}"
        for what, names in unused.items()
        if names
    ]
