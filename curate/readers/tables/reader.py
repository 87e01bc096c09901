"""Tables of addresses and captions, any published one, beside a folder of the pictures fetched from them.

One row is one candidate: the same address in several rows stays several, which the rule on duplicates
joins, and a column that holds a list of captions gives them all to one.
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
from curate.readers.config import TableConfig
from curate.readers.files import version_of
from curate.readers.source import Source
from curate.readers.tables import files as table_files
from curate.readers.tables import rows as table_rows
from curate.readers.tables.files import TableFile
from curate.readers.tables.formats import (
    IDS,
    Meaning,
    captions_of,
    columns_of,
    meaning,
    text_of,
    unquoted,
)
from curate.readers.tables.images import Finder, Images
from curate.readers.tables.keys import Keys
from curate.readers.tally import Tally
from curate.run.cli import UserError

_AHEAD = 1000  # rows that are looked at before the columns' meaning is decided
_NO_IMAGE = "rows whose image is not in dataset.images_dir"


@dataclass(frozen=True, slots=True)
class _Entry:
    """A row that stays: where it stands, and what its columns mean."""

    table: TableFile
    number: int
    record: dict[str, Any]
    meaning: Meaning

    @property
    def url(self) -> str:
        """The row's address, "" where there is none."""
        return text_of(self.record.get(self.meaning.url)) if self.meaning.url else ""

    @property
    def place(self) -> str:
        """File and line, for a note."""
        return f"{self.table.path.name}:{self.number}"


def read(config: TableConfig) -> Source:
    """Stream the table's rows in order; a malformed line is a note, a missing image a counted reason.

    Raises:
        FileNotFoundError: ``dataset.path`` or ``dataset.images_dir`` is not there.
        UserError: no folder of images is given, a file is not what its name says, or the columns do not
            say which is the caption and which the address.
    """
    notes: list[str] = []
    tables = table_files.find(config.path, config.file_type, notes)
    lasting = tuple(notes)
    images = _images(config, tables[0])
    total = _total(config, tables)
    first = next(_entries(config, tables, Tally([])), None)
    if first is not None:
        names_files = first.meaning.image is not None
        urls = (entry.url for entry in _entries(config, tables, Tally([])))
        images.prepare(_digest(config, tables), names_files, lambda: urls)

    def candidates() -> Iterator[Candidate]:
        with images.finder() as finder:
            yield from _candidates(config, tables, finder, Tally(notes, lasting))

    return Source(candidates, images.load, total, notes)


def _images(config: TableConfig, table: TableFile) -> Images:
    if config.images_dir is None:
        raise UserError(
            f"dataset.images_dir is not set: {config.path} lists addresses and captions, no pictures. "
            "Fetch them first, as with img2dataset (--input_format "
            f"{table.kind} --output_format webdataset), then type dataset.images_dir=FOLDER"
        )
    root = Path(config.images_dir)
    if not root.is_dir():
        raise FileNotFoundError(
            f"dataset.images_dir={root} is no folder; type dataset.images_dir=FOLDER, where FOLDER "
            "holds the pictures or the shards that they were fetched into"
        )
    return Images(root, Path(config.index) if config.index else None)


def _total(config: TableConfig, tables: list[TableFile]) -> int | None:
    """The number of rows, which parquet says without being read."""
    if tables[0].kind != "parquet":
        return None
    rows = table_rows.count(tables)
    return None if config.leave_out else rows


def _digest(config: TableConfig, tables: list[TableFile]) -> str:
    """Changes with the addresses that the table has."""
    how = [config.columns, config.quotes, config.url_encoded, config.url_column]
    left_out = sorted(config.leave_out.items())
    files = [(str(table.path), table.kind, version_of(table.path)) for table in tables]
    return json.dumps([how, left_out, files])


def _entries(config: TableConfig, tables: list[TableFile], tally: Tally) -> Iterator[_Entry]:
    """All rows but those that the configuration leaves out."""
    for table in tables:
        rows = table_rows.rows(table, config, tally)
        ahead = list(islice(rows, _AHEAD))
        names = dict.fromkeys(name for _, record in ahead for name in record)
        if not ahead:
            continue
        known = meaning(list(names), config)
        _check_order(table, ahead, known)
        for number, record in chain(ahead, rows):
            if not record.keys() <= names.keys():  # as JSON lines may have it
                names |= dict.fromkeys(record)
                known = meaning(list(names), config)
            entry = _Entry(
                table, number, unquoted(record, known) if config.url_encoded else record, known
            )
            if why := _unwanted(entry, config.leave_out):
                tally.add(f"rows left out, {why}", entry.place)
            else:
                yield entry


def _check_order(table: TableFile, ahead: list[table_rows.Row], known: Meaning) -> None:
    """Refuse a table whose captions stand where the addresses should, such as CC3M's read as CC12M's."""
    if known.url is None:
        return
    urls = [text_of(record.get(known.url)) for _, record in ahead]
    captions = [text_of(record.get(known.captions[0])) for _, record in ahead]
    if not any("://" in url for url in urls) and all("://" in text for text in captions):
        raise UserError(
            f"{table.path} has addresses in column {known.captions[0]!r} and none in {known.url!r}; "
            "dataset=cc3m has the caption first and dataset=cc12m the address. Type "
            "dataset.columns=[...] with the names in their order"
        )


def _unwanted(entry: _Entry, leave_out: dict[str, str]) -> str:
    return next(
        (f"{c} {value}" for c, value in leave_out.items() if text_of(entry.record.get(c)) == value),
        "",
    )


def _candidates(
    config: TableConfig, tables: list[TableFile], finder: Finder, tally: Tally
) -> Iterator[Candidate]:
    keys = Keys()
    root = os.path.commonpath([table.path.parent for table in tables])
    files = {table: table.path.relative_to(root).as_posix() for table in tables}
    for entry in _entries(config, tables, tally):
        record, known, url = entry.record, entry.meaning, entry.url
        captions = captions_of(record, known.captions)
        file = text_of(record.get(known.image)) if known.image else ""
        location = finder.find(record, url, captions, file)
        version = finder.version(location)
        if not version:
            tally.add(_NO_IMAGE, entry.place)
        named = {"url": url} if known.url else {}
        named |= {"file_name": file} if known.image else {}
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
            columns=named | columns_of(record, known.rest),
        )
