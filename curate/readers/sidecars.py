"""Images with a caption file beside each: one walk over a folder, and what it left out."""

from __future__ import annotations

import codecs
import os
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from curate.readers.candidate import clean_caption
from curate.readers.columns import encodable

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


def refuse(error: OSError) -> None:
    """``os.walk``'s ``onerror``: without it, what a folder that cannot be opened holds is lost without a word."""
    raise error


def files_below(root: Path) -> Iterator[Path]:
    """All files below ``root`` but hidden ones and those in hidden folders; links to folders stay closed.

    Raises:
        PermissionError: a folder cannot be opened.
    """
    for folder, _, files in _visible(root):
        yield from (folder / file for file in files)


def _visible(root: Path) -> Iterator[tuple[Path, list[str], list[str]]]:
    """Each folder with the names of its folders and files, without what is hidden."""
    for folder, subfolders, files in os.walk(root, onerror=refuse):
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        yield Path(folder), subfolders, [file for file in files if not file.startswith(".")]


def relative_files(root: Path) -> list[str]:
    """The paths of ``files_below``, relative to ``root``."""
    return [path.relative_to(root).as_posix() for path in files_below(root)]


def images_below(root: Path) -> list[str]:
    """The paths of all images below ``root``, relative to it."""
    return [name for name in relative_files(root) if name.lower().endswith(IMAGE_SUFFIXES)]


@dataclass
class Sidecars:
    """The captions beside images, and what of the caption files was not used as it is.

    Attributes:
        used: caption files that belong to an image.
        cut: those of several lines; as in kohya's scripts the first counts.
        garbled: those that are neither UTF-8 nor marked as UTF-16.
        unreadable: those that could not be opened; their images have no caption.
    """

    used: set[Path] = field(default_factory=set)
    cut: set[Path] = field(default_factory=set)
    garbled: set[Path] = field(default_factory=set)
    unreadable: set[Path] = field(default_factory=set)

    def beside(self, image: Path) -> tuple[str, ...]:
        """The caption of an image; an empty file is an empty caption, no file is none."""
        for path in map(image.with_suffix, (*CAPTION_SUFFIXES, *map(str.upper, CAPTION_SUFFIXES))):
            try:
                data = path.read_bytes()
            except (FileNotFoundError, IsADirectoryError):
                continue
            except OSError:
                self.unreadable.add(path)
                continue
            self.used.add(path)
            first, _, rest = self._decoded(path, data).partition("\n")
            if rest.strip():
                self.cut.add(path)
            return (clean_caption(first),)
        return ()

    def _decoded(self, path: Path, data: bytes) -> str:
        marked = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        encoding = "utf-16" if marked else "utf-8-sig"
        try:
            return data.decode(encoding)
        except UnicodeDecodeError:
            self.garbled.add(path)
            return data.decode(encoding, errors="replace")


def read(root: Path, told: Collection[Path] = ()) -> tuple[list[Row], list[str]]:
    """The images below ``root`` with their captions, and notes on the files that were left out.

    Folders ``told`` are told of elsewhere, with all that is below them.
    """
    sidecars, rows, texts, others, closed = Sidecars(), [], set(), set(), set()
    for folder, subfolders, files in _visible(root):
        if told and not {folder, *folder.parents}.isdisjoint(told):
            continue
        closed |= {folder / name for name in subfolders if (folder / name).is_symlink()}
        for path in map(folder.joinpath, files):
            suffix = path.suffix.lower()
            if suffix in IMAGE_SUFFIXES:
                rows.append((path.relative_to(root).as_posix(), sidecars.beside(path), {}))
            else:
                (texts if suffix in CAPTION_SUFFIXES else others).add(path)
    common = Counter(path.suffix.lower() or "none" for path in sorted(others)).most_common(5)
    kinds = ", ".join(kind for kind, _ in common)
    found = {
        "caption files that belong to no image": texts - sidecars.used - sidecars.unreadable,
        f"files of other types ({kinds})": others,
        "caption files of several lines, the first of which counts": sidecars.cut,
        "caption files that cannot be decoded, with \ufffd for what is lost": sidecars.garbled,
        "caption files that cannot be opened": sidecars.unreadable,
        "links to folders, which are not followed": closed,
    }
    return rows, [
        f"{what}: {len(paths)}, such as {encodable(min(paths).relative_to(root).as_posix())}"
        for what, paths in found.items()
        if paths
    ]
