"""The encoded bytes of an image of a hub data set: in its row, in a file, or in an archive."""

from __future__ import annotations

import lzma
import os
import zipfile
import zlib
from collections.abc import Collection
from pathlib import Path
from typing import Any

from curate.measures.unreadable import CANNOT_BE_READ, MISSING_FILE, UnreadableImage
from curate.readers.files import read_bytes

# How `datasets` names files in archives. Other protocols of fsspec could open any place.
_ARCHIVES = tuple(f"{name}://" for name in ("zip", "tar", "gzip", "bz2", "xz", "zstd", "lz4"))


def folders_of(path: str) -> tuple[Path, ...]:
    """The folders whose files the data set at ``path`` may name: its own, and the caches."""
    from datasets import config
    from huggingface_hub import constants

    caches = [
        *(config.HF_DATASETS_CACHE, config.DOWNLOADED_DATASETS_PATH),
        *(config.EXTRACTED_DATASETS_PATH, constants.HF_HUB_CACHE),
    ]
    given = [Path(folder).expanduser() for folder in (path, *caches)]
    return tuple({folder for each in given for folder in (each.absolute(), each.resolve())})


def bytes_of(value: Any, folders: Collection[Path]) -> bytes:
    """The bytes of an image that was not decoded, ``{"bytes", "path"}``.

    Paths come from the data set and are not trusted: of this machine's files only those below
    ``folders`` are opened, and of servers only the hub. Other URLs are for a downloader.

    Raises:
        UnreadableImage: there is no image, its path is not allowed, or it cannot be read (now).
    """
    path, data = (value or {}).get("path"), (value or {}).get("bytes")
    if data:
        return data
    if not path:
        raise UnreadableImage(MISSING_FILE)
    *archives, place = path.split("::")
    if not all(archive.startswith(_ARCHIVES) for archive in archives):
        raise UnreadableImage(MISSING_FILE)
    if "://" not in place:
        place = _local(place, folders)
    elif not place.startswith("hf://"):
        raise UnreadableImage(MISSING_FILE)
    if not archives and "://" not in place:
        return read_bytes(Path(place))
    return _downloaded("::".join([*archives, place]))


def _local(path: str, folders: Collection[Path]) -> str:
    """The path without ``..``. Links are not resolved: whoever could make one could read its target."""
    absolute = os.path.abspath(path)  # noqa: PTH100 (pathlib keeps ..)
    if "\0" in path or not any(Path(absolute).is_relative_to(folder) for folder in folders):
        raise UnreadableImage("file name leads out of the folder")
    return absolute


def _downloaded(path: str) -> bytes:
    import fsspec

    try:
        with fsspec.open(path) as stream:
            return stream.read()  # type: ignore[union-attr]
    except FileNotFoundError as error:
        raise UnreadableImage(MISSING_FILE) from error
    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError) as error:
        raise UnreadableImage("damaged archive") from error
    except Exception as error:  # the hub's client and each file system have their own errors
        what = getattr(error, "strerror", None) or type(error).__name__
        raise UnreadableImage(f"{CANNOT_BE_READ} ({what})") from error
