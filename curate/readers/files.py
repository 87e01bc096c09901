"""Files below a data set's folder: which there are, an image's bytes, and whether it may have changed."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache, partial
from pathlib import Path, PureWindowsPath

from curate.measures.unreadable import CANNOT_BE_READ, MISSING_FILE, UnreadableImage
from curate.run.remote_files import RemotePath

IMAGE_SUFFIXES = tuple(
    f".{name}"
    for name in (
        *("jpg", "jpeg", "jpe", "jfif", "png", "apng", "webp", "bmp", "dib", "gif", "tif", "tiff"),
        *("avif", "heic", "heif", "jp2", "j2k", "ppm", "pgm", "tga"),
    )
)
CAPTION_KINDS = ("txt", "caption")
CAPTION_SUFFIXES = tuple(f".{kind}" for kind in CAPTION_KINDS)
TEXT_KINDS = (*CAPTION_KINDS, "json", "cls")
"""Of the members of a sample, those that are texts."""
TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
ARCHIVE_SUFFIXES = (".zip", ".7z", ".rar", ".tar.zst", *TAR_SUFFIXES)


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


def is_image(path: str) -> bool:
    """Whether a file has an image's suffix, and no reader passes over it as hidden."""
    name = os.path.basename(path)  # noqa: PTH119 (of a text)
    return name.lower().endswith(IMAGE_SUFFIXES) and not name.startswith(".")


def among(paths: Iterable[Path | RemotePath]) -> Callable[[str], bool]:
    """Whether an absolute path is one of ``paths``, links unresolved."""
    local = (path for path in paths if not isinstance(path, RemotePath))
    known = {os.path.abspath(path) for path in local}  # noqa: PTH100 (which would keep ..)
    return lambda path: os.path.normpath(path) in known


def images_below(root: Path) -> list[str]:
    """The paths of all images below ``root``, relative to it."""
    return [name for name in relative_files(root) if name.lower().endswith(IMAGE_SUFFIXES)]


UNREAD_ARCHIVES = "archives, whose content is not read (unpack them if they hold images)"


def unread_archives(folder: Path) -> list[str]:
    """A note on the archives that lie in ``folder`` itself, except plain tars, if there are some."""
    names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    archives = [name for name in names if name.lower().endswith(ARCHIVE_SUFFIXES)]
    found = [name for name in archives if not name.endswith(".tar")]
    return [f"{UNREAD_ARCHIVES}: {len(found)}, such as {found[0]}"] if found else []


def loader(root: Path) -> Callable[[str], bytes]:
    """A source's ``load`` for locations that are paths relative to ``root``."""
    return partial(_read_below, root)


def _read_below(root: Path, location: str) -> bytes:
    return read_bytes(root / location)


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


def version_of(path: Path | RemotePath | str) -> str:
    """What tells a file from others at the same place without reading it; "" for a missing file.

    Size and modification time alone do not: unpacked archives and `cp -p` set both. The time of the
    last change (ctime) cannot be set, the inode differs between files, and the folder, links resolved,
    tells two data sets apart on file systems that number their files alike. Where any of them changes
    although the bytes do not, as when a data set is moved, the bytes are read once and recognised.
    A file elsewhere has its entity tag, or size and time, and the place that it is in.
    """
    if isinstance(path, RemotePath):
        version = path.version()
        place = hashlib.blake2b(path.parent.url.encode(), digest_size=4).hexdigest()
        return version and f"{version}-{place}"
    try:
        status = os.stat(path)  # noqa: PTH116 (a text will do)
    except (OSError, ValueError):
        return ""
    times = f"{status.st_mtime_ns}-{status.st_ctime_ns}"
    return f"{status.st_size}-{times}-{status.st_ino}-{_home(os.path.dirname(path))}"  # noqa: PTH120 (a text will do)


@lru_cache(maxsize=1024)
def _home(folder: str) -> str:
    """Eight hex digits of a folder's resolved path."""
    resolved = os.fsencode(os.path.realpath(folder))
    return hashlib.blake2b(resolved, digest_size=4).hexdigest()


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
