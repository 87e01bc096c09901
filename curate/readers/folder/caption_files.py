"""Images with a caption file beside each (``picture.txt`` or ``picture.caption``)."""

from __future__ import annotations

import codecs
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from curate.readers.candidate import clean_caption
from curate.readers.columns import encodable
from curate.readers.files import CAPTION_SUFFIXES, IMAGE_SUFFIXES, visible_folders

Row = tuple[str, tuple[str, ...], dict[str, Any]]
"""An image: its path below the root, its captions, further columns of the ledger."""


@dataclass
class CaptionFiles:
    """Reads the caption files beside images, and collects those that need a note.

    Attributes:
        used: belong to an image.
        cut: have several lines; as in kohya's scripts only the first counts.
        garbled: are neither UTF-8 nor marked as UTF-16.
        unreadable: cannot be opened; their images have no caption.
    """

    used: set[Path] = field(default_factory=set)
    cut: set[Path] = field(default_factory=set)
    garbled: set[Path] = field(default_factory=set)
    unreadable: set[Path] = field(default_factory=set)

    def captions_of(self, image: Path) -> tuple[str, ...]:
        """The caption of an image; an empty file gives an empty caption, no file gives ()."""
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


def read(root: Path, excluded: Collection[Path] = ()) -> tuple[list[Row], list[str]]:
    """The images below ``root`` with their captions, and notes on files that were not used.

    The folders ``excluded`` and all below them are skipped.
    """
    caption_files, rows, texts, others, links = CaptionFiles(), [], set(), set(), set()
    for folder, subfolders, files in visible_folders(root):
        if excluded and not {folder, *folder.parents}.isdisjoint(excluded):
            continue
        links |= {folder / name for name in subfolders if (folder / name).is_symlink()}
        for path in map(folder.joinpath, files):
            suffix = path.suffix.lower()
            if suffix in IMAGE_SUFFIXES:
                rows.append(
                    (path.relative_to(root).as_posix(), caption_files.captions_of(path), {})
                )
            else:
                (texts if suffix in CAPTION_SUFFIXES else others).add(path)
    common = Counter(path.suffix.lower() or "none" for path in sorted(others)).most_common(5)
    types = ", ".join(suffix for suffix, _ in common)
    found = {
        "caption files without an image": texts - caption_files.used - caption_files.unreadable,
        f"files of other types ({types})": others,
        "caption files with several lines, of which only the first is used": caption_files.cut,
        "caption files with bytes that cannot be decoded (read as \ufffd)": caption_files.garbled,
        "caption files that cannot be opened": caption_files.unreadable,
        "links to folders, which are not followed": links,
    }
    return rows, [
        f"{what}: {len(paths)}, such as {encodable(min(paths).relative_to(root).as_posix())}"
        for what, paths in found.items()
        if paths
    ]
