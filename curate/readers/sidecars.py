"""Images with a caption file beside each: one walk over a folder, and what it left out."""

from __future__ import annotations

import codecs
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from curate.sample import clean_caption

IMAGE_SUFFIXES = tuple(
    f".{name}"
    for name in (
        *("jpg", "jpeg", "jpe", "png", "webp", "bmp", "dib", "gif", "tif", "tiff"),
        *("avif", "jp2", "j2k", "ppm", "pgm", "tga"),
    )
)
CAPTION_SUFFIXES = (".txt", ".caption")

Row = tuple[str, tuple[str, ...], dict[str, Any]]
"""Path below the root, captions, further columns of the ledger."""


def files_below(root: Path) -> Iterator[Path]:
    """All files below ``root`` but hidden ones and those in hidden folders; links to folders stay closed."""
    for folder, subfolders, files in os.walk(root):
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        yield from (Path(folder, file) for file in files if not file.startswith("."))


def images_below(root: Path) -> list[str]:
    """The paths of all images below ``root``, relative to it."""
    return [
        path.relative_to(root).as_posix()
        for path in files_below(root)
        if path.suffix.lower() in IMAGE_SUFFIXES
    ]


@dataclass
class Sidecars:
    """The captions beside images, and what of the caption files was not used.

    Attributes:
        used: caption files that belong to an image.
        cut: those of several lines; as in kohya's scripts the first counts.
        garbled: those that are neither UTF-8 nor marked as UTF-16.
    """

    used: set[Path] = field(default_factory=set)
    cut: list[Path] = field(default_factory=list)
    garbled: list[Path] = field(default_factory=list)

    def beside(self, image: Path) -> tuple[str, ...]:
        """The caption of an image; an empty file is an empty caption, no file is none."""
        for path in map(image.with_suffix, CAPTION_SUFFIXES):
            try:
                text = self._decoded(path, path.read_bytes())
            except (FileNotFoundError, IsADirectoryError):
                continue
            self.used.add(path)
            first, _, rest = text.partition("\n")
            if rest.strip():
                self.cut.append(path)
            return (clean_caption(first),)
        return ()

    def _decoded(self, path: Path, data: bytes) -> str:
        if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            encoding = "utf-16"
        else:
            encoding = "utf-8-sig"
        try:
            return data.decode(encoding)
        except UnicodeDecodeError:
            self.garbled.append(path)
            return data.decode(encoding, errors="replace")


def read(root: Path) -> tuple[list[Row], list[str]]:
    """The images below ``root`` with their captions, and notes on the files that were left out."""
    sidecars, rows, texts, others = Sidecars(), [], [], []
    for path in files_below(root):
        suffix = path.suffix.lower()
        if suffix in IMAGE_SUFFIXES:
            rows.append((path.relative_to(root).as_posix(), sidecars.beside(path), {}))
        else:
            (texts if suffix in CAPTION_SUFFIXES else others).append(path)
    orphans = [path for path in texts if path not in sidecars.used]
    kinds = Counter(path.suffix.lower() or "none" for path in others)
    notes = [
        _note("caption files without an image", orphans),
        _note(f"left out, files of other types ({', '.join(sorted(kinds))})", others),
        _note("caption files of several lines, the first of which counts", sidecars.cut),
        _note(
            "caption files that are not UTF-8, with \ufffd for what cannot be read",
            sidecars.garbled,
        ),
    ]
    return rows, [note for note in notes if note]


def _note(what: str, paths: list[Path]) -> str:
    return f"{what}: {len(paths)}, such as {min(paths).name}" if paths else ""
