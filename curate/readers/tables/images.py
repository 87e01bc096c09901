"""The pictures that a table speaks of: image files or WebDataset shards below one folder.

A file that the row names is taken at its word. Otherwise a row finds its picture, in this order, by

1. address and caption, then the address alone, as img2dataset notes them of what it fetches: in the
   parquet beside a shard, or in the JSON of each sample; also by ``key``, where the table is such a
   parquet itself;
2. a file called as the row's ``uid``, ``id``, ``photo_id``, ``key`` or ``sha256`` says;
3. a file called as the last part of the address, if no other address of the table ends so.

A picture with notes is found by them alone, and a name that several pictures have finds none. All names
are kept in one index on the disk, which is built when the folder or the table has changed.
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
from curate.readers.files import is_file, local_name, read_bytes, version_of
from curate.readers.json_object import json_object
from curate.readers.sidecars import IMAGE_SUFFIXES, refuse
from curate.readers.tables import index as table_index
from curate.readers.tables.formats import FILE_STEMS, text_of
from curate.readers.tables.index import FILE, ImageIndex, Name
from curate.readers.tars import BrokenTar, Members, iter_samples, read_range

_IN_TAR = re.compile(r"(.+\.tar):(\d+):(\d+)", re.DOTALL)
_INDEX = ".curate-index.sqlite"
_NOTED = ("key", "url", "caption", "uid")
_INDEXED = (".parquet", ".json", *IMAGE_SUFFIXES)


class Images:
    """The pictures below ``root``: where a row's is, whether it has changed, and its bytes."""

    def __init__(self, root: Path, index: Path | None) -> None:
        self.root = root
        self._index_path = index or root / _INDEX
        self._has_index = False

    def prepare(self, table: str, names_files: bool, urls: Callable[[], Iterator[str]]) -> None:
        """Make the index, unless it is there or all pictures are files that the table names.

        Args:
            table: changes with the table.
            names_files: whether the table has a column with the names of files.
            urls: the addresses of the table's rows.

        Raises:
            PermissionError: a folder cannot be opened.
        """
        listing, has_shards = self._listing()
        self._has_index = has_shards or not names_files
        if self._has_index:
            digest = hashlib.sha256(f"{table}\n{listing}".encode()).hexdigest()
            claims = ((_last_part(url), url) for url in urls())
            table_index.ensure(self._index_path, digest, self._named, lambda: claims)

    @contextmanager
    def finder(self) -> Iterator[Finder]:
        """What a pass asks for its rows' pictures."""
        if not self._has_index:
            yield Finder(self.root, None)
            return
        with closing(table_index.opened(self._index_path)) as index:
            yield Finder(self.root, index)

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
        """Each folder with its files, in a fixed order, hidden ones aside."""
        for folder, subfolders, names in os.walk(self.root, onerror=refuse):
            subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
            yield Path(folder), sorted(name for name in names if not name.startswith("."))

    def _listing(self) -> tuple[str, bool]:
        """A digest of what is there, and whether shards are."""
        digest, has_shards = hashlib.sha256(), False
        for folder, names in self._files():
            for name in names:
                is_shard = name.endswith(".tar")
                has_shards = has_shards or is_shard
                is_read = is_shard or Path(name).suffix.lower() in _INDEXED
                version = version_of(folder / name) if is_read else ""
                digest.update(os.fsencode(f"{folder}/{name}\0{version}\n"))
        return digest.hexdigest(), has_shards

    def _named(self) -> Iterator[tuple[str, list[Name]]]:
        """The location and the names of each picture."""
        for folder, names in self._files():
            there = set(names)
            for name in names:
                path = folder / name
                location = path.relative_to(self.root).as_posix()
                if path.suffix == ".tar":
                    yield from _named_in_tar(path, location)
                elif path.suffix.lower() in IMAGE_SUFFIXES:
                    notes = path.with_suffix(".json")
                    record = _notes(notes.read_bytes()) if notes.name in there else {}
                    yield location, _names(name, record)


class Finder:
    """Finds the rows' pictures during one pass."""

    def __init__(self, root: Path, index: ImageIndex | None) -> None:
        self._root = root
        self._index = index
        self._shards: dict[str, str] = {}

    def find(self, record: dict[str, Any], url: str, captions: tuple[str, ...], file: str) -> str:
        """The location of a row's picture, "" where there is none; ``file`` is what the row names."""
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
        """Changes with the bytes at a location; "" where nothing is."""
        found = _IN_TAR.fullmatch(location)
        if not found:
            return version_of(self._root / location) if location and _is_inside(location) else ""
        name = found[1]
        if name not in self._shards:
            self._shards[name] = version_of(self._root / name)
        return f"{self._shards[name]}-{found[2]}"

    def _relative(self, file: str) -> str:
        """A file's name below the root; an address is none."""
        if not file or "://" in file:
            return ""
        file = local_name(self._root, file)
        if Path(file).is_relative_to(self._root.absolute()):
            file = Path(file).relative_to(self._root.absolute()).as_posix()
        return PurePosixPath(file).as_posix()  # ./a.png is a.png


def _is_inside(name: str) -> bool:
    return "\0" not in name and not Path(name).is_absolute() and ".." not in Path(name).parts


def _named_in_tar(path: Path, location: str) -> Iterator[tuple[str, list[Name]]]:
    noted = _sidecar(path.with_suffix(".parquet"))
    samples = list(_whole_samples(path))
    times = Counter(key for key, _ in samples)
    for key, members in samples:
        extension = next((e for e in members if f".{e}" in IMAGE_SUFFIXES), None)
        if extension is None:
            continue
        stem = key.rpartition("/")[2]
        record = noted.get(stem, {}) if times[key] == 1 else {}  # of two it may mean either
        if not record and "json" in members:
            record = _notes(read_range(path, *members["json"]))
        offset, size = members[extension]
        yield f"{location}:{offset}:{size}", _names(f"{stem}.{extension}", record)


def _whole_samples(path: Path) -> Iterator[tuple[str, Members]]:
    """A shard whose download was cut off holds pictures too; the rest is missing, and counted as such."""
    with suppress(BrokenTar):
        yield from iter_samples(path)


def _sidecar(path: Path) -> dict[str, dict[str, Any]]:
    """What the parquet beside a shard notes of each sample, by key; empty where there is none."""
    if not path.is_file():
        return {}
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            columns = [name for name in _NOTED if name in file.schema_arrow.names]
            records = file.read(columns).to_pylist() if {"key", "url"} <= set(columns) else []
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # not of what the file holds
            raise
        return {}  # no parquet after all, or damaged; the samples' own notes serve
    return {text_of(record["key"]): record for record in records}


def _notes(data: bytes) -> dict[str, Any]:
    """Notes; without any where they are not JSON, the picture goes by its name."""
    try:
        return json_object(data)
    except ValueError:
        return {}


def _names(file: str, record: dict[str, Any]) -> list[Name]:
    """The names that a picture goes by; ``record`` is what img2dataset notes of it."""
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
    """The name of the file that an address speaks of, "" for none."""
    try:
        return unquote(urlsplit(url).path.rpartition("/")[2])
    except ValueError:  # no address
        return ""
