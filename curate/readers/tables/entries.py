"""The rows of a table with the roles of their columns, for whatever reads the table."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import repeat, takewhile
from pathlib import Path
from typing import Any

from curate.readers.counted_notes import CountedNotes
from curate.readers.files import is_file
from curate.readers.matching.claims import Row
from curate.readers.matching.paths import local_path
from curate.readers.tables import TableConfig
from curate.readers.tables import files as table_files
from curate.readers.tables import rows as table_rows
from curate.readers.tables.batches import Batch, texts_of
from curate.readers.tables.column_roles import (
    CAPTIONS,
    FILE_STEMS,
    IDS,
    ColumnRoles,
    captions_of,
    column_roles,
    text_of,
    url_decoded,
)
from curate.readers.tables.files import TableFile
from curate.readers.tables.keys import RowKeys
from curate.readers.tables.row_identity import row_identity
from curate.readers.tables.rows import FIRST_ROWS
from curate.run.remote import base_of, is_remote
from curate.run.remote_files import RemotePath, relative
from curate.run.schema import UserError


@dataclass(frozen=True, slots=True)
class Entry:
    """A row: its place in the table, its values, the roles of its columns, and why it is left out, if it is.

    Attributes:
        table, number: the file, and the number of the row's first line in it (of the row, in parquet).
        file: the file's path, relative to the folder of the table.
        record, roles: the values by column, and what the columns are.
        excluded: the column and value of ``dataset.leave_out`` that the row has; "" for none.
    """

    table: TableFile
    file: str
    number: int
    record: dict[str, Any]
    roles: ColumnRoles
    excluded: str

    @property
    def url(self) -> str:
        """The row's URL, "" if there is none."""
        return text_of(self.record.get(self.roles.url)) if self.roles.url else ""

    @property
    def identity(self) -> str:
        """See ``row_identity``; "" for a row without a URL, for which nothing is fetched.

        It has the captions by their known names, so that ``dataset.caption_columns`` does not change it.
        """
        url = self.url
        captions = captions_of(self.record, CAPTIONS) if url else ()
        return row_identity(self.file, self.number, url, captions) if url else ""

    @property
    def captions(self) -> tuple[str, ...]:
        """The row's captions."""
        return captions_of(self.record, self.roles.captions)

    @property
    def place(self) -> str:
        """File name and line number, for a note."""
        return f"{self.table.path.name}:{self.number}"

    def paths(self, images_dir: Path) -> list[str]:
        """The names of the row's file; a column of URLs may hold one, too."""
        names = [name for name in self._texts(self.roles.images) if "://" not in name]
        urls = [name for name in self._texts(self.roles.urls) if "://" not in name]
        maybe = [local_path(images_dir, name) for name in urls]
        return [local_path(images_dir, name) for name in names] + [
            path for path in maybe if is_file(images_dir / path)
        ]

    def _texts(self, columns: tuple[str, ...]) -> list[str]:
        return [text for name in columns if (text := text_of(self.record.get(name)))]

    def row(self, images_dir: Path, *, with_captions: bool) -> Row:
        """What the row says of its picture; a column of file names may hold an address."""
        record, roles = self.record, self.roles
        addresses = self._texts(roles.urls)
        addresses += [text for text in self._texts(roles.images) if "://" in text]
        values = {name: text_of(record[name]) for name in FILE_STEMS if name in record}
        return Row(
            paths=tuple(dict.fromkeys(self.paths(images_dir))),
            addresses=tuple(dict.fromkeys(addresses)),
            captions=captions_of(record, roles.captions) if with_captions else (),
            key=values.get("key", ""),
            ids=tuple(dict.fromkeys(filter(None, values.values()))),
            sha256=values.get("sha256", ""),
            table=str(self.table.path),
            identity=self.identity,
        )

    def key(self, keys: RowKeys, file: str) -> str:
        """The row's key in the data set; ``file`` is the path of its file, see ``key_files``."""
        record, roles = self.record, self.roles
        image = text_of(record.get(roles.image)) if roles.image else ""
        names = (id_ for name in IDS if name in record and (id_ := text_of(record[name])))
        content = (self.url, image, *self.captions)
        return keys.key(next(names, ""), content, file, self.number)


def find(config: TableConfig, notes: list[str]) -> list[TableFile]:
    """The table's files in their order; see ``files.find`` for what it raises, and what is noted."""
    tables = table_files.find(config.path, config.file_type, notes, config.images_dir)
    _refuse_keys_of_text(config, tables)
    return tables


def key_files(tables: list[TableFile]) -> dict[TableFile, str]:
    """The path of each file below the folder that all are in, as keys of repeated rows have it."""
    if isinstance(tables[0].path, RemotePath):
        folders = [str(table.path.parent).split("/") for table in tables]
        same = takewhile(lambda parts: len(set(parts)) == 1, zip(*folders, strict=False))
        root = "/".join(parts[0] for parts in same)
        names = relative([table.path for table in tables], root)  # type: ignore[misc]
        return dict(zip(tables, names, strict=True))
    root = os.path.commonpath([table.local.parent for table in tables])
    return {table: table.local.relative_to(root).as_posix() for table in tables}


def identity_files(config: TableConfig, tables: list[TableFile]) -> dict[TableFile, str]:
    """The path of each file as the rows' identities have it: below ``dataset.path``, if that is a folder.

    So further files in further folders change none of those that were there.
    """
    if is_remote(config.path):
        names = relative([table.path for table in tables], base_of(config.path))  # type: ignore[misc]
        return dict(zip(tables, names, strict=True))
    folder = Path(config.path)
    if not folder.is_dir():
        return key_files(tables)
    return {table: table.local.relative_to(folder).as_posix() for table in tables}


def paths_of(batch: Batch, images_dir: Path) -> list[list[str]]:
    """The names of each row's file, see `Entry.paths`."""
    table, file, roles = batch.table, batch.file, batch.roles
    rows = zip(batch.numbers, batch.records(), strict=True)
    return [Entry(table, file, n, row, roles, "").paths(images_dir) for n, row in rows]


def _refuse_keys_of_text(config: TableConfig, tables: list[TableFile]) -> None:
    """Parquet has names, types and an encoding of its own, so that these keys would do nothing."""
    if any(table.file_type != "parquet" for table in tables):
        return
    unset = {"columns": "null", "encoding": "null", "quotes": "true"}
    given = {"columns": config.columns, "encoding": config.encoding, "quotes": not config.quotes}
    for name in (name for name, value in given.items() if value):
        raise UserError(
            f"dataset.{name} is about tables of text, and {config.path} is parquet, where it has no effect; type "
            f"dataset.{name}={unset[name]}"
        )


def entries(config: TableConfig, tables: list[TableFile], notes: CountedNotes) -> Iterator[Entry]:
    """All rows in order, also those that ``dataset.leave_out`` excludes."""
    for batch in batches(config, tables, notes):
        table, file, roles = batch.table, batch.file, batch.roles
        excluded = batch.excluded or repeat("")
        for number, record, why in zip(batch.numbers, batch.records(), excluded, strict=False):
            yield Entry(table, file, number, record, roles, why)


def batches(config: TableConfig, tables: list[TableFile], notes: CountedNotes) -> Iterator[Batch]:
    """The same rows, some thousand at a time."""
    files = identity_files(config, tables)
    for table in tables:
        names: list[str] = []
        roles: ColumnRoles | None = None
        for numbers, columns in table_rows.blocks(table, config, notes):
            if roles is None or len(columns) > len(names):  # a JSON line with further fields
                names, is_first = list(columns), roles is None
                roles = column_roles(names, config)
                if is_first:
                    _check_order(table, columns, roles)
            if config.url_encoded:
                columns = url_decoded(columns, roles)
            excluded = _excluded(columns, config.leave_out) if config.leave_out else ()
            yield Batch(table, files[table], numbers, columns, roles, excluded)


def _check_order(table: TableFile, first: dict[str, list[Any]], roles: ColumnRoles) -> None:
    """Refuse a table whose URLs are in the caption column, such as CC3M's read as CC12M's."""
    if roles.url is None:
        return
    urls = [text_of(value) for value in first[roles.url][:FIRST_ROWS]]
    captions = [text_of(value) for value in first[roles.captions[0]][:FIRST_ROWS]]
    if not any("://" in url for url in urls) and all("://" in text for text in captions):
        raise UserError(
            f"{table.path} has URLs in column {roles.captions[0]!r} and none in {roles.url!r}; "
            "dataset=cc3m has the caption first, dataset=cc12m the URL. Type "
            "dataset.columns=[...] with the names in their order"
        )


def _excluded(columns: dict[str, list[Any]], leave_out: dict[str, str]) -> list[str]:
    """Of each row the first column and value of ``leave_out`` that it has; "" for none."""
    found = [
        [f"{name} {value}" if text == value else "" for text in texts_of(columns[name])]
        for name, value in leave_out.items()
    ]
    return [next(filter(None, row), "") for row in zip(*found, strict=True)]
