"""Find the picture of each row of a table among image files or WebDataset shards below one folder.

If the row names a file that exists, that is its picture. Otherwise it is looked up, in this order, by

1. URL and caption, then the URL alone, as img2dataset records them: in the parquet beside a shard, or
   in the JSON of each sample; then by ``key``, for a table that is such a parquet itself;
2. a file whose stem is the row's ``uid``, ``id``, ``photo_id``, ``key`` or ``sha256``;
3. a file whose name is the last part of the URL, if no other URL of the table ends in it.

A picture with a recorded URL is found by its record only, and a name that several pictures share finds
none of them. The names are kept in an index on disk, built when the folder or the table has changed.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from curate.measures.unreadable import MISSING_FILE, UnreadableImage
from curate.readers.candidate import clean_caption
from curate.readers.files import (
    IMAGE_SUFFIXES,
    is_file,
    local_name,
    raise_error,
    read_bytes,
    version_of,
)
from curate.readers.json_object import json_object
from curate.readers.tables import index as image_index
from curate.readers.tables.column_roles import FILE_STEMS, text_of
from curate.readers.tables.index import FILE, ImageIndex, Name
from curate.readers.tars import BrokenTar, Members, iter_samples, read_range

_IN_TAR = re.compile(r"(.+\.tar):(\d+):(\d+)", re.DOTALL)
_INDEX = ".curate-index.sqlite"
_RECORDED = ("key", "url", "caption", "uid")  # columns of img2dataset's parquet
_INDEXED = (".parquet", ".json", *IMAGE_SUFFIXES)


class Images:
    """The pictures below ``root``: their index, and their bytes."""

    def __init__(self, root: Path, index: Path | None) -> None:
        self.root = root
        self._index_path = index or root / _INDEX
        self._has_index = False

    def prepare(self, table: str, names_files: bool, urls: Callable[[], Iterator[str]]) -> None:
        """Build the index, unless it is up to date or not needed: a table may name all files itself.

        Args:
            table: a text that changes when the table does.
            names_files: whether the table has a column of file names.
            urls: starts a pass over the URLs of the table's rows.

        Raises:
            PermissionError: a folder cannot be opened.
        """
        listing, has_shards = self._listing()
        self._has_index = has_shards or not names_files
        if self._has_index:
            digest = hashlib.sha256(f"{table}\n{listing}".encode()).hexdigest()
            url_names = ((_last_part(url), url) for url in urls())
            image_index.ensure(self._index_path, digest, self._names, lambda: url_names)

    @contextmanager
    def finder(self) -> Iterator[ImageFinder]:
        """Open the index for one pass."""
        if not self._has_index:
            yield ImageFinder(self.root, None)
            return
        with closing(image_index.opened(self._index_path)) as index:
            yield ImageFinder(self.root, index)

    def load(self, location: str) -> bytes:
        """The bytes at a location; raises ``UnreadableImage``."""
        if not location:
            raise UnreadableImage(MISSING_FILE)
        found = _IN_TAR.fullmatch(location)
        name = found[1] if found else location
        if not _is_inside(name):
            raise UnreadableImage("file name leads out of the folder")
        if not found:
            return read_bytes(self.root / name)
        return read_range(self.root / name, int(found[2]), int(found[3]))

    def _files(self) -> Iterator[tuple[Path, list[str]]]:
        """Each folder with its files, in a fixed order, without hidden ones."""
        for folder, subfolders, names in os.walk(self.root, onerror=raise_error):
            subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
            yield Path(folder), sorted(name for name in names if not name.startswith("."))

    def _listing(self) -> tuple[str, bool]:
        """A hash of all files below the root, and whether there are shards."""
        digest, has_shards = hashlib.sha256(), False
        for folder, names in self._files():
            for name in names:
                is_shard = name.endswith(".tar")
                has_shards = has_shards or is_shard
                is_read = is_shard or Path(name).suffix.lower() in _INDEXED
                version = version_of(folder / name) if is_read else ""
                digest.update(os.fsencode(f"{folder}/{name}\0{version}\n"))
        return digest.hexdigest(), has_shards

    def _names(self) -> Iterator[tuple[str, list[Name]]]:
        """The location and the names of each picture."""
        for folder, names in self._files():
            there = set(names)
            for name in names:
                path = folder / name
                location = path.relative_to(self.root).as_posix()
                if path.suffix == ".tar":
                    yield from _names_in_tar(path, location)
                elif path.suffix.lower() in IMAGE_SUFFIXES:
                    written = path.with_suffix(".json")
                    record = _record(written.read_bytes()) if written.name in there else {}
                    yield location, _names(name, record)


class ImageFinder:
    """Finds the pictures of a table's rows during one pass."""

    def __init__(self, root: Path, index: ImageIndex | None) -> None:
        self._root = root
        self._index = index
        self._shards: dict[str, str] = {}

    def find(self, record: dict[str, Any], url: str, captions: tuple[str, ...], file: str) -> str:
        """The location of a row's picture, "" for none; ``file`` is the file name in the row."""
        file = self._relative(file)
        if file and (self._index is None or (_is_inside(file) and is_file(self._root / file))):
            return file
        if self._index is None:
            return ""
        location = self._index.find(_names_of_row(record, url, captions, file))
        if location or not self._index.has(FILE):
            return location
        last = _last_part(url)
        return "" if self._index.is_shared(last) else self._index.find([(FILE, last)])

    def version(self, location: str) -> str:
        """A text that changes with the bytes at a location; "" if nothing is there."""
        found = _IN_TAR.fullmatch(location)
        if not found:
            return version_of(self._root / location) if location and _is_inside(location) else ""
        name = found[1]
        if name not in self._shards:
            self._shards[name] = version_of(self._root / name)
        return f"{self._shards[name]}-{found[2]}"

    def _relative(self, file: str) -> str:
        """A file name relative to the root; "" for a URL."""
        if not file or "://" in file:
            return ""
        file = local_name(self._root, file)
        if Path(file).is_relative_to(self._root.absolute()):
            file = Path(file).relative_to(self._root.absolute()).as_posix()
        return PurePosixPath(file).as_posix()  # ./a.png becomes a.png


def _is_inside(name: str) -> bool:
    return "\0" not in name and not Path(name).is_absolute() and ".." not in Path(name).parts


def _names_in_tar(path: Path, location: str) -> Iterator[tuple[str, list[Name]]]:
    records = _records_beside(path.with_suffix(".parquet"))
    samples = list(_whole_samples(path))
    times = Counter(key for key, _ in samples)
    for key, members in samples:
        extension = next((e for e in members if f".{e}" in IMAGE_SUFFIXES), None)
        if extension is None:
            continue
        stem = key.rpartition("/")[2]
        record = records.get(stem, {}) if times[key] == 1 else {}  # else ambiguous
        if not record and "json" in members:
            record = _record(read_range(path, *members["json"]))
        offset, size = members[extension]
        yield f"{location}:{offset}:{size}", _names(f"{stem}.{extension}", record)


def _whole_samples(path: Path) -> Iterator[tuple[str, Members]]:
    """The samples of a shard up to any damage; rows of the others are counted as missing files."""
    with suppress(BrokenTar):
        yield from iter_samples(path)


def _records_beside(path: Path) -> dict[str, dict[str, Any]]:
    """The rows of img2dataset's parquet beside a shard, by key; {} if there is none."""
    if not path.is_file():
        return {}
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            columns = [name for name in _RECORDED if name in file.schema_arrow.names]
            records = file.read(columns).to_pylist() if {"key", "url"} <= set(columns) else []
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # the file could not be read
            raise
        return {}  # not parquet, or damaged: the samples' own JSON is used instead
    return {text_of(record["key"]): record for record in records}


def _record(data: bytes) -> dict[str, Any]:
    """img2dataset's JSON of one picture; {} if it is not a JSON object."""
    try:
        return json_object(data)
    except ValueError:
        return {}


def _names(file: str, record: dict[str, Any]) -> list[Name]:
    """The names by which a picture is found; ``record`` is img2dataset's of it, or {}."""
    stem = file.partition(".")[0]
    url = text_of(record.get("url"))
    if not url:
        return [("stem", stem), (FILE, file)]
    caption = clean_caption(text_of(record.get("caption")))
    names = [("pair", f"{url}\n{caption}"), ("url", url), ("key", stem)]
    uid = text_of(record.get("uid"))
    return [*names, ("stem", uid)] if uid else names


def _names_of_row(
    record: dict[str, Any], url: str, captions: tuple[str, ...], file: str
) -> Iterator[Name]:
    """The names to look up for a row, the most specific first."""
    if url:
        yield from (("pair", f"{url}\n{caption}") for caption in captions or ("",))
        yield "url", url
    if file:
        yield FILE, PurePosixPath(file).name
    if "key" in record and (key := text_of(record["key"])):
        yield "key", key
    for column in FILE_STEMS:
        if column in record and (name := text_of(record[column])):
            yield "stem", name


def _last_part(url: str) -> str:
    """The file name at the end of a URL, "" for none."""
    try:
        return unquote(urlsplit(url).path.rpartition("/")[2])
    except ValueError:  # not a URL
        return ""
