"""A folder of images with their captions: text files beside them, or one metadata table."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from curate.readers import metadata, sidecars
from curate.readers.candidate import Candidate, key_of
from curate.readers.columns import encodable
from curate.readers.config import FolderConfig
from curate.readers.files import loader, version_of
from curate.readers.source import Source
from curate.run.cli import UserError


def read(config: FolderConfig) -> Source:
    """List the images below ``config.root``, hidden files aside, in the order of their paths.

    A metadata table decides alone in its folder and below; other images are paired by their stems.
    """
    root = Path(config.root)
    if not root.is_dir():
        raise FileNotFoundError(
            f"dataset.root={config.root} is no folder; type dataset.root=FOLDER, where FOLDER holds "
            "images with .txt or .caption files beside them, or a metadata.csv, .jsonl, .parquet or .json"
        )
    rows, notes = _listed(root)
    if not rows:
        remedy = (
            f"dataset.root=FOLDER takes one with pictures ({', '.join(sidecars.IMAGE_SUFFIXES)})"
        )
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


def _listed(root: Path) -> tuple[list[sidecars.Row], list[str]]:
    """The images below ``root`` with what tables and captions beside them say, and notes."""
    tables = _tables(root)
    rows, notes = sidecars.read(root, [table.parent for table in tables])
    for table in tables:
        told, remarks = _from_table(root, table)
        rows += told
        notes += remarks if told else [f"{table} names no images", *remarks]
    rows, garbled = _with_names(rows)
    return rows, notes + garbled


def _tables(root: Path) -> list[Path]:
    """The metadata table of each folder that has one, in the order of their paths; none below another's."""
    found: dict[Path, Path] = {}
    named = [path for path in sidecars.files_below(root) if path.name in metadata.NAMES]
    for path in sorted(named, key=lambda path: (path.parent, metadata.NAMES.index(path.name))):
        found.setdefault(path.parent, path)
    return [table for folder, table in found.items() if set(folder.parents).isdisjoint(found)]


def _with_names(rows: list[sidecars.Row]) -> tuple[list[sidecars.Row], list[str]]:
    """The rows whose file names are text, and a note on the others."""
    garbled = {name for name, _, _ in rows if encodable(name) != name}
    if not garbled:
        return rows, []
    note = "images left out because their names are not UTF-8 (rename them, as with convmv)"
    return (
        [row for row in rows if row[0] not in garbled],
        [f"{note}: {len(garbled)}, such as {encodable(min(garbled))}"],
    )


def _from_table(root: Path, table: Path) -> tuple[list[sidecars.Row], list[str]]:
    """What a table says of its folder, by paths below ``root``."""
    below = table.parent.relative_to(root)
    rows, notes = metadata.read(table)
    found = sidecars.relative_files(table.parent)
    unused = {
        f"images not named in {table.name}": (
            {name for name in found if name.lower().endswith(sidecars.IMAGE_SUFFIXES)}
            - {name for name, _, _ in rows}
        ),
        f"files of captions that {table.name} stands for": {
            name
            for name in found
            if name.lower().endswith(sidecars.CAPTION_SUFFIXES)
            or (name in metadata.NAMES and name != table.name)
        },
    }
    placed = [((below / name).as_posix(), captions, columns) for name, captions, columns in rows]
    return placed, notes + [
        f"{what}: {len(names)}, such as {encodable((below / min(names)).as_posix())}"
        for what, names in unused.items()
        if names
    ]
