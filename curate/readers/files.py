"""Files below a data set's folder: which there are, an image's bytes, and whether it may have changed."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path, PureWindowsPath

from curate.measures.unreadable import CANNOT_BE_READ, MISSING_FILE, UnreadableImage

IMAGE_SUFFIXES = tuple(
    f".{name}"
    for name in (
        *("jpg", "jpeg", "jpe", "png", "webp", "bmp", "dib", "gif", "tif", "tiff"),
        *("avif", "jp2", "j2k", "ppm", "pgm", "tga"),
    )
)
CAPTION_SUFFIXES = (".txt", ".caption")


def raise_error(error: OSError) -> None:
    """``os.walk``'s ``onerror``: by default it skips a folder that cannot be opened, without a word."""
    raise error


def visible_folders(root: Path) -> Iterator[tuple[Path, list[str], list[str]]]:
    """``os.walk`` without hidden files and folders: each folder, its folders' names, its files' names.

    Links to folders are named, but not followed.

    Raises:
        PermissionError: a folder cannot be opened.
    """
    for folder, subfolders, files in os.walk(root, onerror=raise_error):
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        yield Path(folder), subfolders, [file for file in files if not file.startswith(".")]


def files_below(root: Path) -> Iterator[Path]:
    """All files of `visible_folders`."""
    for folder, _, files in visible_folders(root):
        yield from (folder / file for file in files)


def relative_files(root: Path) -> list[str]:
    """The paths of `files_below`, relative to ``root``."""
    return [path.relative_to(root).as_posix() for path in files_below(root)]


def images_below(root: Path) -> list[str]:
    """The paths of all images below ``root``, relative to it."""
    return [name for name in relative_files(root) if name.lower().endswith(IMAGE_SUFFIXES)]


def loader(root: Path) -> Callable[[str], bytes]:
    """A source's ``load`` for locations that are paths relative to ``root``."""
    return lambda location: read_bytes(root / location)


def read_bytes(path: Path) -> bytes:
    """The file's bytes.

    Raises:
        UnreadableImage: it is missing or cannot be read.
    """
    try:
        return path.read_bytes()
    except (FileNotFoundError, ValueError) as error:  # ValueError: a NUL in the name
        raise UnreadableImage(MISSING_FILE) from error
    except OSError as error:
        raise UnreadableImage(f"{CANNOT_BE_READ} ({error.strerror})") from error


def version_of(path: Path | str) -> str:
    """Size and modification time, which change when the bytes do; "" for a missing file."""
    try:
        status = os.stat(path)  # noqa: PTH116 (a text will do)
    except (OSError, ValueError):
        return ""
    return f"{status.st_size}-{status.st_mtime_ns}"


def local_name(folder: Path, name: str) -> str:
    """A file name with ``/`` for Windows' ``\\`` and without white space around it.

    A name under which ``folder`` holds a file is returned as it is.
    """
    plain = name.strip()
    if "\\" in plain:
        plain = PureWindowsPath(plain).as_posix()
    return name if plain == name or is_file(folder / name) else plain


def is_file(path: Path) -> bool:
    """Whether there is such a file; False for text that cannot be a file name."""
    try:
        return path.is_file()
    # Too long, or with a NUL: some tables have the picture itself in such a column.
    except (OSError, ValueError):
        return False
