"""A folder of images with their captions: text files beside them, or one metadata table."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from curate.command import UserError
from curate.readers import metadata, sidecars
from curate.readers.config import FolderConfig
from curate.readers.files import loader, version_of
from curate.readers.source import Source
from curate.sample import Candidate, key_of


def read(config: FolderConfig) -> Source:
    """List the images below ``config.root``, hidden files aside, in the order of their paths.

    A metadata table at the root decides alone; otherwise each image is paired by its stem.
    """
    root = Path(config.root)
    if not root.is_dir():
        raise FileNotFoundError(
            f"dataset.root={config.root} is no folder; type dataset.root=FOLDER, where FOLDER holds "
            "images with .txt or .caption files beside them, or a metadata.csv, .jsonl, .parquet or .json"
        )
    table = next((root / name for name in metadata.NAMES if (root / name).is_file()), None)
    rows, notes = _from_table(root, table) if table else sidecars.read(root)
    if not rows:
        why = "; ".join(
            [
                f"{table} names no images" if table else f"{root} holds no images",
                *notes,
                f"dataset.root=FOLDER takes one with pictures ({', '.join(sidecars.IMAGE_SUFFIXES)})",
            ]
        )
        raise UserError(why)
    stems = Counter(name.rpartition(".")[0] for name, _, _ in rows)
    candidates = []
    for name, captions, columns in sorted(rows, key=lambda row: row[0]):
        stem = name.rpartition(".")[0]
        candidates.append(
            Candidate(
                key=key_of(stem if stem and stems[stem] == 1 else name),
                captions=captions,
                source=config.name,
                location=name,
                version=version_of(root / name),
                columns={"file_name": name, **columns},
            )
        )
    return Source.of(candidates, loader(root), notes)


def _from_table(root: Path, table: Path) -> tuple[list[sidecars.Row], list[str]]:
    rows, notes = metadata.read(table)
    found = sidecars.relative_files(root)
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
    return rows, notes + [
        f"{what}: {len(names)}, such as {min(names)}" for what, names in unused.items() if names
    ]
