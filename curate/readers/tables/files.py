"""The files of a table: found, told apart by name and content, and opened."""

from __future__ import annotations

import bz2
import glob
import gzip
import io
import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from curate.readers.sidecars import refuse
from curate.readers.tally import Tally
from curate.readers.what_is import HEAD_BYTES, PARQUET, what_is
from curate.run.cli import UserError

KINDS = ("csv", "tsv", "jsonl", "parquet")
_SUFFIXES = {f".{kind}": kind for kind in KINDS} | {".ndjson": "jsonl", ".tab": "tsv"}
_COMPRESSION = {".gz": "gzip", ".bz2": "bzip2"}
_LEFTOVERS = (".crc", ".part", ".tmp", ".partial", ".incomplete", ".aria2", ".lock")


@dataclass(frozen=True, slots=True)
class TableFile:
    """One file of a table: where it is, one of ``KINDS``, and how it is compressed ("" for not)."""

    path: Path
    kind: str
    compression: str = ""


def find(path: str, kind: str | None, notes: list[str]) -> list[TableFile]:
    """The files that ``path`` names: a file, all tables below a folder, or what a glob matches.

    What downloads and Spark leave behind (hidden files, ``.crc``, ``.part``, ``_SUCCESS``) and files of
    other types are noted. Each file's content is held against its name.

    Args:
        path: as typed.
        kind: one of ``KINDS``; None tells it from the suffix.
        notes: receives what was left out.

    Raises:
        FileNotFoundError: nothing is there.
        PermissionError: a folder cannot be opened.
        UserError: no table among what is there, several kinds of them, or content that is something else.
    """
    if Path(path).is_file():
        tables = [_named(Path(path), kind)]
    else:
        tables = list(_among(_matches(path), kind, Tally(notes)))
    if not tables:
        raise UserError(
            f"dataset.path={path} holds no table ({', '.join(_SUFFIXES)}, text also .gz or .bz2); "
            + "; ".join([*notes, "type dataset.path=FILE, FOLDER or 'GLOB'"])
        )
    kinds = {table.kind: table.path for table in reversed(tables)}
    if len(kinds) > 1:
        raise UserError(
            f"dataset.path={path} holds tables of several types: {', '.join(map(str, kinds.values()))}; "
            "type dataset.path='FOLDER/*.parquet' or the like for one of them"
        )
    for table in tables:
        _check_content(table)
    return tables


def opened(table: TableFile) -> io.BufferedIOBase:
    """The text of a table as bytes, decompressed."""
    if table.compression == "gzip":
        return gzip.open(table.path, "rb")
    if table.compression == "bzip2":
        return bz2.open(table.path, "rb")
    return table.path.open("rb")


def _matches(path: str) -> Iterator[Path]:
    if Path(path).is_dir():
        for folder, subfolders, names in os.walk(path, onerror=refuse):
            subfolders[:] = sorted(name for name in subfolders if name[0] not in "._")
            yield from (Path(folder, name) for name in sorted(names))
        return
    found = sorted(glob.glob(path, recursive=True))  # noqa: PTH207 (an absolute glob has no folder)
    if not found:
        raise FileNotFoundError(
            f"dataset.path={path} is not there; type dataset.path=FILE, FOLDER or 'GLOB'"
        )
    yield from (Path(name) for name in found if Path(name).is_file())


def _among(paths: Iterator[Path], kind: str | None, tally: Tally) -> Iterator[TableFile]:
    for path in paths:
        if path.name[0] in "._" or path.suffix in _LEFTOVERS:
            tally.add("files skipped for their names", path.name)
        elif (suffix := _split(path)[0]) in _SUFFIXES or (kind and not suffix):
            yield _named(path, kind)
        else:
            tally.add("files of other types", path.name)


def _split(path: Path) -> tuple[str, str]:
    """The suffix before the compression's, and the compression."""
    compression = _COMPRESSION.get(path.suffix.lower(), "")
    return (path.with_suffix("") if compression else path).suffix.lower(), compression


def _named(path: Path, kind: str | None) -> TableFile:
    suffix, compression = _split(path)
    kind = kind or _SUFFIXES.get(suffix)
    if kind is None:
        raise UserError(
            f"the name of {path} does not tell its type; type dataset.file_type={'|'.join(KINDS)}"
        )
    return TableFile(path, kind, compression)


def _check_content(table: TableFile) -> None:
    """Refuse a file that is not what its name says, and say what it is."""
    with table.path.open("rb") as stream:
        found = what_is(stream.read(HEAD_BYTES))
        end = stream.seek(0, os.SEEK_END)
        stream.seek(max(0, end - 4))
        tail = stream.read()
    expected = f"compressed by {table.compression}" if table.compression else ""
    if table.kind == "parquet":
        expected = PARQUET
        if found == expected and (end < 12 or tail != b"PAR1"):
            raise UserError(f"{table.path} is a truncated parquet file; fetch it again")
    if found == expected and table.compression:
        with opened(table) as stream:
            try:
                found, expected = what_is(stream.read(HEAD_BYTES)), ""
            except (OSError, EOFError, zlib.error) as error:
                raise UserError(f"{table.path} is damaged ({error}); fetch it again") from error
    if found != expected:
        raise UserError(
            f"{table.path} is {found or 'plain text'}, not {expected or f'{table.kind} text'}; fetch "
            "it again, or give it the name of what it is"
        )
