"""The pictures of a table: image files or WebDataset shards below one folder, and what was noted of them.

img2dataset notes the address of each picture: in the parquet beside a shard, or in the JSON beside a
picture or in its sample. ``curate.fetch`` notes its row as well, and of each row without a picture why.
The pictures' names are kept in an index on disk, built when the folder or the table has changed; a table
that names all its files exactly needs none.
"""

from __future__ import annotations

import hashlib
import os
import re
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from curate.measures.not_fetched import STORED, error_of, location_of, state_at
from curate.measures.unreadable import MISSING_FILE, UnreadableImage
from curate.readers.candidate import clean_caption
from curate.readers.files import IMAGE_SUFFIXES, raise_error, read_bytes, version_of
from curate.readers.json_object import json_object
from curate.readers.matching.claims import Picture, Row, mark
from curate.readers.matching.index import Noted
from curate.readers.matching.matches import fill, stored
from curate.readers.matching.paths import is_inside, named_file
from curate.readers.remote_tars import RemoteTar
from curate.readers.tables import match_file
from curate.readers.tables.column_roles import text_of
from curate.readers.tars import (
    LINK,
    BrokenTar,
    Members,
    UnchangedTars,
    iter_samples,
    read_range,
)
from curate.run.remote import base_of, check
from curate.run.remote_files import RemotePath, relative
from curate.run.remote_files import found as elsewhere

Matches = Callable[
    [int, int, Callable[[], Sequence[Sequence[str]]]], tuple[list[str], dict[int, str]]
]
"""Location of each of some rows, "" for none, and notes of a few of them, by their place among these."""

_IN_TAR = re.compile(rf"(.+\.tar):(\d+):(\d+|{LINK})", re.DOTALL)
_INDEX = ".curate-index.sqlite"
_SPOOL = Path("data/spool")  # for what is kept of shards elsewhere
_NOTED = ("key", "url", "caption", "uid", "sha256", "row")  # columns of a shard's parquet
_STATE = "state"
_INDEXED = (".tar", ".parquet", ".json", *IMAGE_SUFFIXES)


def is_indexed(path: str) -> bool:
    """Whether the index depends on what is in a file of this name."""
    return path.lower().endswith(_INDEXED)


class Images:
    """The pictures below ``root``: which belongs to which row, and their bytes.

    Attributes:
        notes: what the user should know of the index.
    """

    def __init__(self, root: Path, index: Path | None) -> None:
        self.root = root
        self._index_path = index or root / _INDEX
        self._has_own_place = index is not None
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        self._open: Callable[[], sqlite3.Connection] | None = None
        self.notes: list[str] = []
        self._shards: dict[str, str] = {}
        self._tars = UnchangedTars()

    def __getstate__(self) -> dict[str, Any]:
        """In another process pictures are loaded, and not matched."""
        return {**self.__dict__, "_open": None, "_temporary": None}

    def prepare(
        self,
        table: str,
        rows: Callable[[bool], Iterator[Row]],
        beside: Callable[[], Iterator[Row]],
        first: int | None = None,
    ) -> None:
        """Match the rows with the pictures, unless that is up to date.

        Args:
            table: a text that changes when the rows do.
            rows: starts a pass over all rows of the table, with or without their captions.
            beside: starts a pass over rows of other tables, which may name the same pictures.
            first: only so many rows at the start are asked about.

        Raises:
            PermissionError: a folder cannot be opened.
            UserError: the index cannot be written.
        """
        if not self._has_own_place and not os.access(self.root, os.W_OK):
            self._temporary = tempfile.TemporaryDirectory(prefix="curate-index-")
            self._index_path = Path(self._temporary.name, _INDEX)
            self.notes.append(
                f"{self.root} cannot be written to: the index of its pictures is built again by each "
                "command, unless dataset.index=FILE names a place for it"
            )

        def fill_from(connection: sqlite3.Connection) -> None:
            fill(connection, self.root, self._pictures(), rows, beside, first)

        asked = "" if first is None else f"{first}\n"
        digest = hashlib.sha256(f"{table}\n{asked}{self._listing()}".encode()).hexdigest()
        match_file.ensure(self._index_path, digest, fill_from)
        self._open = partial(match_file.opened, self._index_path, digest, fill_from)

    @contextmanager
    def matches(self) -> Iterator[Matches]:
        """Gives what of rows is known by the number of the first, how many they are, and the paths of each."""
        if self._open is None:
            yield lambda _, __, paths: ([named_file(self.root, each) for each in paths()], {})
            return
        with closing(self._open()) as connection:

            def match(first: int, count: int, _: object) -> tuple[list[str], dict[int, str]]:
                locations, notes = [""] * count, {}
                for number, location, note in stored(connection, first, count):
                    locations[number - first] = location
                    if note:
                        notes[number - first] = note
                return locations, notes

            yield match

    def versions(self, locations: Sequence[str]) -> list[str]:
        """`version` of each location."""
        known, version = self._shards, self.version
        found = []
        for location in locations:
            if not location:
                found.append("")
                continue
            place, _, size = location.rpartition(":")
            shard, _, offset = place.rpartition(":")
            if shard in known and f"{offset}{size}".isdecimal() and offset.isascii():
                found.append(f"{known[shard]}-{offset}")
            else:
                found.append(version(location))
        return found

    def version(self, location: str) -> str:
        """A text that changes with the bytes at a location; "" if nothing is there.

        It also changes with the reason why a picture was not fetched.
        """
        if state_at(location):
            return location
        found = _IN_TAR.fullmatch(location)
        if not found:
            return version_of(self.root / location) if location and is_inside(location) else ""
        name = found[1]
        if name not in self._shards:
            self._shards[name] = version_of(self.root / name)
        return f"{self._shards[name]}-{found[2]}"

    def load(self, location: str) -> bytes:
        """The bytes at a location.

        Raises:
            UnreadableImage: there are none, or they cannot be read.
            UserError: the tar is another than that of the index, and has other bytes at this place.
        """
        if not location:
            raise UnreadableImage(MISSING_FILE)
        if state := state_at(location):
            raise UnreadableImage(error_of(state))
        found = _IN_TAR.fullmatch(location)
        name = found[1] if found else location
        if not is_inside(name):
            raise UnreadableImage("file name leads out of the folder")
        if not found:
            return read_bytes(self.root / name)
        return self._tars.read(self._place(name), int(found[2]), int(found[3]))

    def _place(self, name: str) -> Path:
        return self.root / name

    def _files(self) -> Iterator[tuple[str, list[str]]]:
        """Each folder, ``""`` or with a ``/`` at its end, with its files, in a fixed order, without hidden ones."""
        for folder, subfolders, names in os.walk(self.root, onerror=raise_error):
            subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
            below = Path(folder).relative_to(self.root).as_posix()
            visible = sorted(name for name in names if not name.startswith("."))
            yield "" if below == "." else f"{below}/", visible

    def _listing(self) -> str:
        """A hash of all files below the root."""
        digest = hashlib.sha256()
        for folder, names in self._files():
            for name in names:
                path = f"{self.root}/{folder}{name}"
                version = version_of(path) if is_indexed(name) else ""
                digest.update(os.fsencode(f"{path}\0{version}\n"))
                if name.endswith(".tar"):
                    self._tars.note(self.root / folder / name)
        return digest.hexdigest()

    def _pictures(self) -> Iterator[Noted]:
        for folder, names in self._files():
            there = set(names)
            for name in names:
                location = f"{folder}{name}"
                if name.endswith(".tar"):
                    yield from _in_tar(self.root / location, location)
                elif name.lower().endswith(IMAGE_SUFFIXES):
                    written = f"{name.rpartition('.')[0]}.json"
                    beside = self.root / folder / written
                    record = _record(beside.read_bytes()) if written in there else {}
                    yield _noted(location, "", record)


class RemoteImages(Images):
    """Shards of img2dataset elsewhere. Single pictures there are not looked for."""

    def __init__(self, url: str, index: Path | None) -> None:
        """``index`` is null for one below ``data/spool``."""
        check("dataset.images_dir", url)
        own = hashlib.blake2b(url.encode(), digest_size=8).hexdigest()
        super().__init__(Path(os.devnull), index or _SPOOL / f"{own}.sqlite")
        self._has_own_place = True
        base = base_of(url)
        files = elsewhere("dataset.images_dir", url)
        self._found = dict(zip(relative(files, base), files, strict=True))
        self._tar_at = {
            name: RemoteTar.of(path, _SPOOL)
            for name, path in self._found.items()
            if name.endswith(".tar")
        }
        if not self._tar_at:
            raise FileNotFoundError(
                f"dataset.images_dir={url} holds no .tar; elsewhere the pictures of a table lie in shards, as "
                "img2dataset writes them. Type dataset.images_dir=s3://BUCKET/PREFIX"
            )

    def version(self, location: str) -> str:
        """As of `Images`."""
        found = _IN_TAR.fullmatch(location)
        if state_at(location) or not found:
            return location if state_at(location) else ""
        if found[1] not in self._shards:
            self._shards[found[1]] = version_of(self._tar_at[found[1]])
        return f"{self._shards[found[1]]}-{found[2]}"

    def _place(self, name: str) -> Path:
        return self._tar_at[name]  # type: ignore[return-value]

    def _listing(self) -> str:
        digest = hashlib.sha256()
        for name, path in self._found.items():
            digest.update(
                f"{name}\0{path.version() if path.status is None else path.status}\n".encode()
            )
        for tar in self._tar_at.values():
            self._tars.note(tar)  # type: ignore[arg-type]
        return digest.hexdigest()

    def _pictures(self) -> Iterator[Noted]:
        for name, tar in self._tar_at.items():
            yield from _in_tar(tar, name)  # type: ignore[arg-type]


def _in_tar(path: Path, location: str) -> Iterator[Noted]:
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
        records.pop(stem, None)
        offset, size = members[extension]
        yield _noted(f"{location}:{offset}:{size}", f"{key}.{extension}", record)
    for record in records.values():
        state, row = text_of(record.get(_STATE)), text_of(record.get("row"))
        if row and state and state != STORED:
            yield Picture(location_of(state)), {"row": row}


def _noted(location: str, member: str, record: dict[str, Any]) -> Noted:
    """A picture with what img2dataset's ``record`` notes of it."""
    if not record:
        return Picture(location, member), {}
    noted = {name: text for name in _NOTED if (text := text_of(record.get(name)))}
    if "caption" in noted:
        noted["caption"] = clean_caption(noted["caption"])
    address, uid, sha256 = (noted.get(name, "") for name in ("url", "uid", "sha256"))
    return Picture(location, member, mark(address), mark(uid), mark(sha256.lower())), noted


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
        with pq.ParquetFile(path.open("rb") if isinstance(path, RemotePath) else path) as file:
            columns = [name for name in (*_NOTED, _STATE) if name in file.schema_arrow.names]
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
