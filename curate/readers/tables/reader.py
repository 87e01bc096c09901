"""Tables of URLs and captions, as many data sets are published, with a folder of the downloaded pictures.

Each row is one candidate. A URL in several rows gives several, which the rule on duplicates joins. A
column with a list of captions gives all of them to one candidate.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

from curate.readers.candidate import Candidate
from curate.readers.counted_notes import CountedNotes
from curate.readers.files import is_file, unread_archives, version_of
from curate.readers.matching.claims import Row
from curate.readers.matching.matches import Match
from curate.readers.matching.paths import local_path, named_file
from curate.readers.source import Source
from curate.readers.tables import TableConfig, neighbours, parquet
from curate.readers.tables import files as table_files
from curate.readers.tables import rows as table_rows
from curate.readers.tables.column_roles import (
    FILE_STEMS,
    IDS,
    ColumnRoles,
    captions_of,
    column_roles,
    columns_of,
    text_of,
    url_decoded,
)
from curate.readers.tables.files import TableFile
from curate.readers.tables.images import Images
from curate.readers.tables.keys import RowKeys
from curate.run.schema import UserError

_FIRST_ROWS = 1000  # read ahead to learn the columns of JSON lines and to check their order
_NO_IMAGE = "rows whose image is not in dataset.images_dir"


@dataclass(frozen=True, slots=True)
class _Entry:
    """A row: its place in the table, its values, the roles of its columns, and why it is left out, if it is."""

    table: TableFile
    number: int
    record: dict[str, Any]
    roles: ColumnRoles
    excluded: str

    @property
    def url(self) -> str:
        """The row's URL, "" if there is none."""
        return text_of(self.record.get(self.roles.url)) if self.roles.url else ""

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
        )


def read(config: TableConfig) -> Source:
    """Stream the table's rows in order; malformed lines are noted, missing images counted.

    Raises:
        FileNotFoundError: ``dataset.path`` or ``dataset.images_dir`` is missing.
        UserError: ``dataset.images_dir`` is not set, a file is not what its name says, or no
            column is known to hold captions or URLs.
    """
    notes: list[str] = []
    tables = table_files.find(config.path, config.file_type, notes)
    _refuse_keys_of_text(config, tables)
    notes += unread_archives(Path(config.images_dir)) if config.images_dir else []
    images = _images(config, tables[0])
    total = _total(config, tables)
    before = _digest(config, tables)
    if not _names_all_files(config, tables, images.root):
        beside = neighbours.tables_beside(config, tables)
        images.prepare(
            f"{before}\n{_digest(config, beside)}",
            lambda with_captions: _rows(config, tables, images.root, with_captions=with_captions),
            lambda: neighbours.rows_beside(beside, lambda t: _rows(config, [t], images.root)),
        )
    file_notes = (*notes, *images.notes)

    def candidates() -> Iterator[Candidate]:
        if _digest(config, tables) != before:  # rows are matched by their number
            raise UserError(f"{config.path} has changed since the command started; type it again")
        with images.matches() as match:
            yield from _candidates(config, tables, images, match, CountedNotes(notes, file_notes))

    return Source(candidates, images.load, total, notes)


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


def _images(config: TableConfig, table: TableFile) -> Images:
    if config.images_dir is None:
        raise UserError(
            f"dataset.images_dir is not set: {config.path} lists URLs and captions, no pictures. "
            "Download them first, for instance with img2dataset (--input_format "
            f"{table.file_type} --output_format webdataset), then type dataset.images_dir=FOLDER"
        )
    root = Path(config.images_dir)
    if not root.is_dir():
        raise FileNotFoundError(
            f"dataset.images_dir={root} is not a folder; type dataset.images_dir=FOLDER, where FOLDER "
            "holds the downloaded pictures or shards"
        )
    return Images(root, Path(config.index) if config.index else None)


def _total(config: TableConfig, tables: list[TableFile]) -> int | None:
    """The number of rows, if parquet's metadata has it."""
    if tables[0].file_type != "parquet":
        return None
    rows = parquet.count(tables)
    return None if config.leave_out else rows


def _digest(config: TableConfig, tables: list[TableFile]) -> str:
    """A text that changes when what the rows say of their pictures may have changed."""
    how = [config.columns, config.quotes, config.url_encoded, config.encoding]
    roles = [config.url_column, config.image_column, config.caption_columns]
    files = [(str(table.path), table.file_type, version_of(table.path)) for table in tables]
    return json.dumps([how, roles, files])


def _entries(config: TableConfig, tables: list[TableFile], notes: CountedNotes) -> Iterator[_Entry]:
    """All rows, also those that ``dataset.leave_out`` excludes."""
    for table in tables:
        rows = table_rows.rows(table, config, notes)
        first = list(islice(rows, _FIRST_ROWS))
        names = dict.fromkeys(name for _, record in first for name in record)
        if not first:
            continue
        roles = column_roles(list(names), config)
        _check_order(table, first, roles)
        for number, record in chain(first, rows):
            if not record.keys() <= names.keys():  # a JSON line with further fields
                names |= dict.fromkeys(record)
                roles = column_roles(list(names), config)
            values = url_decoded(record, roles) if config.url_encoded else record
            yield _Entry(table, number, values, roles, _excluded(values, config.leave_out))


def _names_all_files(config: TableConfig, tables: list[TableFile], images_dir: Path) -> bool:
    """Whether every row names an existing file, so that there is nothing to match."""
    entries = _entries(config, tables, CountedNotes([]))
    return all(named_file(images_dir, entry.paths(images_dir)) for entry in entries)


def _rows(
    config: TableConfig, tables: list[TableFile], images_dir: Path, *, with_captions: bool = True
) -> Iterator[Row]:
    """What all rows say of their pictures, also those that are left out: their pictures are theirs."""
    for entry in _entries(config, tables, CountedNotes([])):
        yield entry.row(images_dir, with_captions=with_captions)


def _check_order(table: TableFile, first: list[table_rows.Row], roles: ColumnRoles) -> None:
    """Refuse a table whose URLs are in the caption column, such as CC3M's read as CC12M's."""
    if roles.url is None:
        return
    urls = [text_of(record.get(roles.url)) for _, record in first]
    captions = [text_of(record.get(roles.captions[0])) for _, record in first]
    if not any("://" in url for url in urls) and all("://" in text for text in captions):
        raise UserError(
            f"{table.path} has URLs in column {roles.captions[0]!r} and none in {roles.url!r}; "
            "dataset=cc3m has the caption first, dataset=cc12m the URL. Type "
            "dataset.columns=[...] with the names in their order"
        )


def _excluded(record: dict[str, Any], leave_out: dict[str, str]) -> str:
    """The first column and value of ``leave_out`` that a row has; "" for none."""
    found = (f"{c} {value}" for c, value in leave_out.items() if text_of(record.get(c)) == value)
    return next(found, "")


def _candidates(
    config: TableConfig,
    tables: list[TableFile],
    images: Images,
    match: Callable[[int, Sequence[str]], Match],
    notes: CountedNotes,
) -> Iterator[Candidate]:
    keys = RowKeys()
    root = os.path.commonpath([table.path.parent for table in tables])
    files = {table: table.path.relative_to(root).as_posix() for table in tables}
    for number, entry in enumerate(_entries(config, tables, notes)):
        if entry.excluded:
            notes.add(f"rows left out, {entry.excluded}", entry.place)
            continue
        record, roles, url = entry.record, entry.roles, entry.url
        captions = captions_of(record, roles.captions)
        found = match(number, entry.paths(images.root))
        version = images.version(found.location)
        for note in (found.note, "" if version else _NO_IMAGE):
            if note:
                notes.add(note, entry.place)
        file = text_of(record.get(roles.image)) if roles.image else ""
        named = {"url": url} if roles.url else {}
        named |= {"file_name": file} if roles.image else {}
        yield Candidate(
            key=keys.key(
                next((id_ for c in IDS if c in record and (id_ := text_of(record[c]))), ""),
                (url, file, *captions),
                files[entry.table],
                entry.number,
            ),
            captions=captions,
            source=config.name,
            location=found.location,
            version=version,
            columns=named | columns_of(record, roles.rest),
        )
