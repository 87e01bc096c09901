"""A folder of images with their captions: text files beside them, or one metadata table."""

from __future__ import annotations

from collections import Counter
from functools import partial
from pathlib import Path

from curate.command import UserError
from curate.config import FolderConfig
from curate.images import UnreadableImage
from curate.readers import Listing, metadata, sidecars
from curate.sample import Candidate, key_of


def read(config: FolderConfig) -> Listing:
    """List the images below ``config.root``, hidden files aside, in the order of their paths.

    A metadata table at the root decides alone; otherwise each image is paired by its stem.
    """
    root = Path(config.root)
    if not root.is_dir():
        raise FileNotFoundError(
            f"dataset.root={config.root} is no folder; type dataset.root=FOLDER, where FOLDER holds "
            "images with .txt or .caption files beside them, or a metadata.csv, .jsonl or .parquet"
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
    for name, captions, columns in sorted(rows, key=lambda row: row[0])[: config.limit]:
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
    return Listing(candidates, notes)


def _from_table(root: Path, table: Path) -> tuple[list[sidecars.Row], list[str]]:
    rows, notes = metadata.read(table)
    unnamed = set(sidecars.images_below(root)) - {name for name, _, _ in rows}
    if not unnamed:
        return rows, notes
    return rows, [
        *notes,
        f"images not named in {table.name}: {len(unnamed)}, such as {min(unnamed)}",
    ]


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
