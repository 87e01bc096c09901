"""The files of a table: find them, check their types by name and content, open them."""

from __future__ import annotations

import bz2
import glob
import gzip
import itertools
import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

from curate.readers.counted_notes import CountedNotes
from curate.readers.file_signature import HEAD_BYTES, PARQUET, identify
from curate.readers.files import raise_error
from curate.readers.text_encoding import TextDecoder
from curate.run.remote import is_remote
from curate.run.remote_files import RemotePath
from curate.run.remote_files import found as elsewhere
from curate.run.schema import UserError

TYPES = ("csv", "tsv", "jsonl", "parquet")
_SUFFIXES = {f".{name}": name for name in TYPES} | {".ndjson": "jsonl", ".tab": "tsv"}
_COMPRESSION = {".gz": "gzip", ".bz2": "bzip2"}
_WIDE_HEAD_BYTES = 4096
_MAY_BE_WIDE = ("text in UTF-16", "binary data")
FETCHED = "fetch.json"
"""In a folder that pictures were fetched into: its parquet files note what was fetched, and are no table."""

_LEFTOVERS = (".crc", ".part", ".tmp", ".partial", ".incomplete", ".aria2", ".lock")


@dataclass(frozen=True, slots=True)
class TableFile:
    """One file of a table: its path, its type (of ``TYPES``), and its compression ("" for none)."""

    path: Path | RemotePath
    file_type: str
    compression: str = ""

    @property
    def local(self) -> Path:
        """The path of a file on this machine."""
        assert isinstance(self.path, Path), self.path
        return self.path


def find(
    path: str, file_type: str | None, notes: list[str], images_dir: str | None = None
) -> list[TableFile]:
    """The files that ``path`` names: a file, all tables below a folder, or the matches of a glob.

    Remains of downloads and of Spark (hidden files, ``.crc``, ``.part``, ``_SUCCESS``) and files of
    other types are noted. Each file's content is checked against its name. The pictures' folders, which
    hold parquet files of their own, may be below the folder: nothing in them is the table's.

    Args:
        path: as typed.
        file_type: one of ``TYPES``; None derives it from the suffix.
        notes: what was left out is added here.
        images_dir: of the pictures; tables are looked for in it only if there are none elsewhere.

    Raises:
        FileNotFoundError: nothing matches.
        PermissionError: a folder cannot be opened.
        UserError: there is no table, tables of several types, or content of another type.
    """
    if is_remote(path):
        tables = list(
            _tables(iter(elsewhere("dataset.path", path)), file_type, CountedNotes(notes))
        )
        if not tables and not notes:
            raise FileNotFoundError(
                f"dataset.path={path} was not found; type dataset.path=s3://BUCKET/FILE, a prefix or a glob"
            )
    elif Path(path).is_file():
        tables = [_table(Path(path), file_type)]
    else:
        found = _beside_pictures(path, list(_matches(path)), images_dir)
        tables = list(_tables(iter(found), file_type, CountedNotes(notes)))
    if not tables:
        raise UserError(
            f"dataset.path={path} holds no table ({', '.join(_SUFFIXES)}, text also .gz or .bz2); "
            + "; ".join([*notes, "type dataset.path=FILE, FOLDER or 'GLOB'"])
        )
    examples = {table.file_type: table.path for table in reversed(tables)}
    if len(examples) > 1:
        raise UserError(
            f"dataset.path={path} holds tables of several types: {', '.join(map(str, examples.values()))}; "
            "choose one, such as dataset.path='FOLDER/*.parquet'"
        )
    for table in tables[:1] if is_remote(path) else tables:  # elsewhere each takes two requests
        _check_content(table)
    return tables


def open_text(table: TableFile) -> IO[bytes]:
    """Open a table's decompressed text, as bytes."""
    source = table.path.open("rb") if isinstance(table.path, RemotePath) else table.path
    if table.compression == "gzip":
        return cast("IO[bytes]", gzip.open(source, "rb"))
    if table.compression == "bzip2":
        return cast("IO[bytes]", bz2.open(source, "rb"))
    return table.path.open("rb")


def wide_encoding(table: TableFile) -> str:
    """UTF-16 or UTF-32, if a table's text is in it; "" for text of one byte a character, such as UTF-8."""
    with open_text(table) as stream:
        head = stream.read(_WIDE_HEAD_BYTES)
    decoder = TextDecoder("utf-8", lambda: ())
    for cut in (0, 2):  # a character of four bytes may be cut
        encoding = decoder.decode(head[: len(head) - cut]).encoding
        if encoding.startswith(("utf-16", "utf-32")):
            return encoding
    return ""


def _matches(path: str) -> Iterator[Path]:
    if Path(path).is_dir():
        for folder, subfolders, names in os.walk(path, onerror=raise_error):
            subfolders[:] = sorted(name for name in subfolders if name[0] not in "._")
            yield from (Path(folder, name) for name in sorted(names))
        return
    found = sorted(glob.glob(path, recursive=True))  # noqa: PTH207 (an absolute glob has no folder)
    if not found:
        raise FileNotFoundError(
            f"dataset.path={path} was not found; type dataset.path=FILE, FOLDER or 'GLOB'"
        )
    yield from (Path(name) for name in found if Path(name).is_file())


def folder_of(path: str) -> Path:
    """The folder below which ``path`` finds its files: as typed, or what a glob has before its first sign.

    >>> folder_of("a/b*/c/*.parquet").as_posix(), folder_of("*.csv").as_posix()
    ('a', '.')
    """
    if Path(path).is_dir():
        return Path(path)
    parts = Path(path).parent.parts
    fixed = itertools.takewhile(lambda part: not glob.has_magic(part), parts)
    return Path(*fixed)


def _beside_pictures(path: str, found: list[Path], images_dir: str | None) -> list[Path]:
    """The files that are in no folder of pictures below that of the table."""
    top = folder_of(path).resolve()
    fetched: dict[Path, bool] = {top: False}

    def is_fetched(folder: Path) -> bool:
        if folder not in fetched:
            is_below = top in folder.parents
            fetched[folder] = is_below and (
                (folder / FETCHED).is_file() or is_fetched(folder.parent)
            )
        return fetched[folder]

    found = [each for each in found if not is_fetched(each.parent.resolve())]
    pictures = Path(images_dir).resolve() if images_dir else top
    if top not in pictures.parents:
        return found
    elsewhere = [each for each in found if pictures not in each.resolve().parents]
    is_table = any(_split(each)[0] in _SUFFIXES for each in elsewhere)
    return elsewhere if is_table else found


def _tables(
    paths: Iterator[Path | RemotePath], file_type: str | None, notes: CountedNotes
) -> Iterator[TableFile]:
    for path in paths:
        if path.name[0] in "._" or path.suffix in _LEFTOVERS:
            notes.add("files skipped because of their names", path.name)
        elif (suffix := _split(path)[0]) in _SUFFIXES or (file_type and not suffix):
            yield _table(path, file_type)
        else:
            notes.add("files of other types", path.name)


def _split(path: Path | RemotePath) -> tuple[str, str]:
    """The suffix without that of the compression, and the compression."""
    compression = _COMPRESSION.get(path.suffix.lower(), "")
    name = path.name.removesuffix(path.suffix) if compression else path.name
    return os.path.splitext(name)[1].lower(), compression  # noqa: PTH122 (of a name)


def _table(path: Path | RemotePath, file_type: str | None) -> TableFile:
    suffix, compression = _split(path)
    file_type = file_type or _SUFFIXES.get(suffix)
    if file_type is None:
        raise UserError(
            f"the suffix of {path} is not that of a table; type dataset.file_type={'|'.join(TYPES)}"
        )
    return TableFile(path, file_type, compression)


def _is_wide(table: TableFile, found: str) -> bool:
    """Whether what looks like ``found`` is text of two or four bytes a character."""
    try:
        return found in _MAY_BE_WIDE and bool(wide_encoding(table))
    except (OSError, EOFError, zlib.error):
        return False


def _check_content(table: TableFile) -> None:
    """Raise ``UserError`` for a file that is not what its name says; it says what the file is."""
    with table.path.open("rb") as stream:
        found = identify(stream.read(HEAD_BYTES))
        end = stream.seek(0, os.SEEK_END)
        stream.seek(max(0, end - 4))
        tail = stream.read()
    expected = f"compressed by {table.compression}" if table.compression else ""
    if table.file_type == "parquet":
        expected = PARQUET
        if found == expected and (end < 12 or tail != b"PAR1"):
            raise UserError(f"{table.path} is a truncated parquet file; download it again")
    if found == expected and table.compression:
        with open_text(table) as stream:
            try:
                found, expected = identify(stream.read(HEAD_BYTES)), ""
            except (OSError, EOFError, zlib.error) as error:
                raise UserError(f"{table.path} is damaged ({error}); download it again") from error
    if found != expected and not (table.file_type != "parquet" and _is_wide(table, found)):
        raise UserError(
            f"{table.path} is {found or 'plain text'}, not {expected or f'{table.file_type} text'}; "
            "download it again, or rename it with the suffix of its type"
        )
