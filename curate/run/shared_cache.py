"""``<run.root>/.cache``, what all runs share by content: where it lies, what is in it, when it was used.

``annotations/``
    measurements of pictures and captions, see ``curate.annotate.store``.
``latents/``, ``conditioning/``, ``shards/``
    what the encoders made of pictures and captions, and listings of shards, see ``finetune.cache``.

Files in it appear whole, are never changed under their name, and what is deleted is made again. The time of
their last change is that of their last use. A command that uses a folder of it shares the folder's lock;
``python -m workflows.prune`` deletes where nobody does. Pruning and removals exclude each other by the lock
of the whole cache, which nobody else takes.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

CACHE = ".cache"
"""The cache's folder, in ``run.root``."""

ANNOTATIONS, LATENTS, CONDITIONING = "annotations", "latents", "conditioning"
LISTINGS = "shards"
"""The folders of the kinds, in the cache."""

GB = 1e9
ABANDONED_S = (
    3600  # the age at which a temporary file, written in seconds, is taken for a killed writer's
)

ENTRIES = {
    ANNOTATIONS: "*/part-*.parquet",
    LATENTS: "*/*.safetensors",
    CONDITIONING: "*/*.safetensors",
    LISTINGS: "*.json",
}
"""The files of each kind, below its folder."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A file of the cache.

    Attributes:
        path: where it is; the lock of its folder is held by those who use it.
        kind: a key of ``ENTRIES``.
        bytes: what its deletion frees; 0 for one that a run has too (a hard link).
        used_ns: when it was last used.
    """

    path: Path
    kind: str
    bytes: int
    used_ns: int


def entries(cache_dir: Path) -> Iterator[Entry]:
    """All files of the cache, whose kinds this program knows."""
    for kind, pattern in ENTRIES.items():
        for path in sorted((cache_dir / kind).glob(pattern)):
            try:
                found = path.stat()
            except FileNotFoundError:  # deleted meanwhile
                continue
            size = found.st_size if found.st_nlink == 1 else 0
            yield Entry(path, kind, size, found.st_mtime_ns)


def touch(paths: Iterable[Path]) -> None:
    """Say that files are used now. One that is gone, or is another user's, stays as it is."""
    for path in paths:
        with suppress(OSError):
            os.utime(path)


def remove_abandoned(folder: Path) -> None:
    """Delete the temporary files of writers that were killed; a younger one may still be written."""
    for part in folder.rglob(".*.part"):
        try:
            if time.time() - part.stat().st_mtime > ABANDONED_S:
                part.unlink()
        except FileNotFoundError:  # its writer has just finished, or another command was first
            continue


def note(cache_dir: Path, limit_gb: float) -> str:
    """What to type where the cache holds more than a limit; else ""."""
    held = sum(entry.bytes for entry in entries(cache_dir)) / GB
    if held <= limit_gb:
        return ""
    return (
        f"note: {cache_dir} holds {held:.3g} GB, more than run.cache_gb={limit_gb:g}; to delete what was not "
        f"used for longest, type: python -m workflows.prune --root {cache_dir.parent} --keep-gb {limit_gb:g}"
    )
