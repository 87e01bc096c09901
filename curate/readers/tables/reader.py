"""Tables of URLs and captions, as many data sets are published, with a folder of the downloaded pictures.

Each row is one candidate. A URL in several rows gives several, which the rule on duplicates joins. A
column with a list of captions gives all of them to one candidate.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

from curate.readers.candidate import Candidate
from curate.readers.counted_notes import CountedNotes
from curate.readers.files import version_of
from curate.readers.source import Source
from curate.readers.tables import TableConfig, parquet
from curate.readers.tables import files as table_files
from curate.readers.tables import rows as table_rows
from curate.readers.tables.column_roles import (
    IDS,
    ColumnRoles,
    captions_of,
    column_roles,
    columns_of,
    text_of,
    url_decoded,
)
from curate.readers.tables.files import TableFile
from curate.readers.tables.images import ImageFinder, Images
from curate.readers.tables.keys import RowKeys
from curate.run.schema import UserError

_FIRST_ROWS = 1000  # read ahead to learn the columns of JSON lines and to check their order
_NO_IMAGE = "rows whose image is not in dataset.images_dir"


@dataclass(frozen=True, slots=True)
class _Entry:
    """A row that is not left out: its place in the table, its values, and the roles of its columns."""

    table: TableFile
    number: int
    record: dict[str, Any]
    roles: ColumnRoles

    @property
    def url(self) -> str:
        """The row's URL, "" if there is none."""
        return text_of(self.record.get(self.roles.url)) if self.roles.url else ""

    @property
    def place(self) -> str:
        """File name and line number, for a note."""
        return f"{self.table.path.name}:{self.number}"


def read(config: TableConfig) -> Source:
    """Stream the table's rows in order; malformed lines are noted, missing images counted.

    Raises:
        FileNotFoundError: ``dataset.path`` or ``dataset.images_dir`` is missing.
        UserError: ``dataset.images_dir`` is not set, a file is not what its name says, or no
            column is known to hold captions or URLs.
    """
    notes: list[str] = []
    tables = table_files.find(config.path, config.file_type, notes)
    file_notes = tuple(notes)
    images = _images(config, tables[0])
    total = _total(config, tables)
    first = next(_entries(config, tables, CountedNotes([])), None)
    if first is not None:
        names_files = first.roles.image is not None
        urls = (entry.url for entry in _entries(config, tables, CountedNotes([])))
        images.prepare(_digest(config, tables), names_files, lambda: urls)

    def candidates() -> Iterator[Candidate]:
        with images.finder() as finder:
            yield from _candidates(config, tables, finder, CountedNotes(notes, file_notes))

    return Source(candidates, images.load, total, notes)


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
    """A text that changes when the table's URLs may have changed."""
    how = [config.columns, config.quotes, config.url_encoded, config.url_column, config.encoding]
    left_out = sorted(config.leave_out.items())
    files = [(str(table.path), table.file_type, version_of(table.path)) for table in tables]
    return json.dumps([how, left_out, files])


def _entries(config: TableConfig, tables: list[TableFile], notes: CountedNotes) -> Iterator[_Entry]:
    """All rows except those that ``dataset.leave_out`` excludes."""
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
            entry = _Entry(table, number, values, roles)
            if why := _excluded(entry, config.leave_out):
                notes.add(f"rows left out, {why}", entry.place)
            else:
                yield entry


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


def _excluded(entry: _Entry, leave_out: dict[str, str]) -> str:
    """The first column and value of ``leave_out`` that a row has; "" for none."""
    return next(
        (f"{c} {value}" for c, value in leave_out.items() if text_of(entry.record.get(c)) == value),
        "",
    )


def _candidates(
    config: TableConfig, tables: list[TableFile], finder: ImageFinder, notes: CountedNotes
) -> Iterator[Candidate]:
    keys = RowKeys()
    root = os.path.commonpath([table.path.parent for table in tables])
    files = {table: table.path.relative_to(root).as_posix() for table in tables}
    for entry in _entries(config, tables, notes):
        record, roles, url = entry.record, entry.roles, entry.url
        captions = captions_of(record, roles.captions)
        file = text_of(record.get(roles.image)) if roles.image else ""
        location = finder.find(record, url, captions, file)
        version = finder.version(location)
        if not version:
            notes.add(_NO_IMAGE, entry.place)
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
            location=location,
            version=version,
            columns=named | columns_of(record, roles.rest),
        )
