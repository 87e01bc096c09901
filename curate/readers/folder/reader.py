"""A folder of images with their captions: text files beside them, or metadata tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from curate.readers.candidate import Candidate, key_of
from curate.readers.columns import encodable
from curate.readers.companions import Companion, claimed
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
    Elsewhere an image's caption is in the text file with the same stem or name. ``NAME.control.png`` and
    ``NAME.mask.png`` beside an image ``NAME.*`` are its companions, unless they have a caption or a table's row.

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
    rows, beside, notes = _rows_and_notes(root, config.encoding)
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
                companions=tuple(
                    Companion(kind, file, version_of(root / file))
                    for kind, file in sorted(beside.get(stem, {}).items())
                ),
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
        rows, beside, _ = _from_table(root, table, config.encoding)
        companions = (file for kinds in beside.values() for file in kinds.values())
        found += [
            table,
            *(root / name for name, _, _ in rows),
            *(root / name for name in companions),
        ]
    yield from (path for path in found if encodable(path.name) == path.name)


Beside = dict[str, dict[str, str]]
"""The companions of images, by the images' stems and their kinds."""


def _rows_and_notes(root: Path, encoding: str | None) -> tuple[list[Row], Beside, list[str]]:
    """The images that tables name and those with caption files, their companions, and notes on what was not used."""
    tables = _tables(root)
    rows, notes = caption_files.read(root, [table.parent for table in tables], encoding)
    beside = claimed(
        [name for name, _, _ in rows], [name for name, captions, _ in rows if captions]
    )
    companions = {file for kinds in beside.values() for file in kinds.values()}
    rows = [row for row in rows if row[0] not in companions]
    for table in tables:
        named, theirs, remarks = _from_table(root, table, encoding)
        rows += named
        beside |= theirs
        notes += remarks if named else [f"{table} names no images", *remarks]
    rows, garbled = _with_utf8_names(rows)
    return rows, beside, notes + garbled


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


def _from_table(
    root: Path, path: Path, encoding: str | None
) -> tuple[list[Row], Beside, list[str]]:
    """The images that the table at ``path`` names and their companions below ``root``, and notes on files it replaces."""
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
    images = {name for name in found if name.lower().endswith(IMAGE_SUFFIXES)}
    stems = {name.rpartition(".")[0] for name in named}
    beside = {stem: kinds for stem, kinds in claimed(images, named).items() if stem in stems}
    companions = {file for kinds in beside.values() for file in kinds.values()}
    unused = {
        f"images not named in {path.name}": (images - named - companions),
        f"caption files and tables not used because of {path.name}": {
            name
            for name in found
            if name.lower().endswith(CAPTION_SUFFIXES)
            or (name in metadata.NAMES and name != path.name)
        },
        UNREAD_ARCHIVES: archives - named,
    }
    placed = [((below / name).as_posix(), captions, columns) for name, captions, columns in rows]
    beside = {
        (below / stem).as_posix(): {kind: (below / file).as_posix() for kind, file in kinds.items()}
        for stem, kinds in beside.items()
    }
    return (
        placed,
        beside,
        table.notes
        + [
            f"{what}: {len(names)}, such as {encodable((below / min(names)).as_posix())}"
            for what, names in unused.items()
            if names
        ],
    )
