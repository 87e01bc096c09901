"""Image files below a folder: their bytes, and what tells that they have changed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path, PureWindowsPath

from curate.measures.unreadable import CANNOT_BE_READ, MISSING_FILE, UnreadableImage


def loader(root: Path) -> Callable[[str], bytes]:
    """A source's ``load`` for locations that are paths relative to ``root``."""
    return lambda location: read_bytes(root / location)


def read_bytes(path: Path) -> bytes:
    """The file's bytes; a missing one is the data's fault."""
    try:
        return path.read_bytes()
    except (FileNotFoundError, ValueError) as error:  # no name of a file has a NUL in it
        raise UnreadableImage(MISSING_FILE) from error
    except OSError as error:
        raise UnreadableImage(f"{CANNOT_BE_READ} ({error.strerror})") from error


def version_of(path: Path) -> str:
    """Size and modification time, without reading; empty for a missing file."""
    try:
        status = path.stat()
    except (OSError, ValueError):
        return ""
    return f"{status.st_size}-{status.st_mtime_ns}"


def local_name(folder: Path, name: str) -> str:
    """A file's name with the ``\\`` of Windows as ``/`` and without white space around it.

    Unless ``folder`` holds a file that is called so.
    """
    plain = name.strip()
    if "\\" in plain:
        plain = PureWindowsPath(plain).as_posix()
    return name if plain == name or is_file(folder / name) else plain


def is_file(path: Path) -> bool:
    """Whether there is such a file; text that no file can be called is none."""
    try:
        return path.is_file()
    # Too long, or with a NUL: tables have pictures themselves in such columns.
    except (OSError, ValueError):
        return False
