"""The requests of a table: one for each row with an address, in the order of the rows; and how large they are."""

from __future__ import annotations

import bz2
import gzip
import io
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Any

from curate.fetch import hashes
from curate.fetch.answer import Request
from curate.fetch.config import FetchConfig
from curate.fetch.hashes import Hashes, HashFile, hashes_in
from curate.readers.counted_notes import CountedNotes
from curate.readers.subset import is_chosen
from curate.readers.tables import TableConfig, parquet
from curate.readers.tables.column_roles import columns_of, text_of
from curate.readers.tables.entries import Entry, entries, key_files
from curate.readers.tables.files import TableFile, open_text
from curate.readers.tables.keys import RowKeys
from curate.run.schema import UserError

_BLOCK_BYTES = 2**16  # the last one of what is cut off is lost
_HEAD_BYTES = 2**24  # of a compressed table whose lines are counted
_OPENED = {"gzip": gzip.open, "bzip2": bz2.open}
_FIRST = 1000  # rows whose sizes stand for those of all
_HASHES = ("md5", "MD5", "sha256", "SHA256")
_BYTES_PER_PICTURE = 30_000
"""Where the table says no sizes: CC12M is 331 GB for 11 million pictures (img2dataset, dataset_examples/cc12m.md)."""

_BYTES_PER_PIXEL = 0.25
"""JPEG files of 0.2 to 0.3 megapixels on the web have a median of 1.95 bits a pixel (HTTP Archive 2024, by
codec-compare's wiki, "Bits per pixel of Internet images")."""


@dataclass(frozen=True, slots=True)
class Size:
    """About how much there is to fetch: requests, bytes, and whether these are by the sizes that the table says."""

    requests: int
    bytes: int
    is_by_pixels: bool


def requests(
    config: TableConfig, fetch: FetchConfig, tables: list[TableFile], notes: list[str]
) -> Iterator[Request]:
    """The requests of all rows that ``dataset.*`` chooses, with a batch of rows in memory.

    Rows are numbered through all files, also those without a request.

    Args:
        config, tables: the table.
        fetch: ``rows_per_shard``, ``verify`` and ``hashes`` are used.
        notes: what was left out; complete after the last request.

    Raises:
        UserError: the table has no column of addresses, or ``fetch.hashes`` holds none.
        FileNotFoundError: ``fetch.hashes`` is missing.
    """
    with ExitStack() as stack:
        published = None
        if fetch.hashes and fetch.verify:
            published = stack.enter_context(hashes.opened(Path(fetch.hashes)))
        for number, entry in _chosen(config, tables, CountedNotes(notes)):
            shard, index = divmod(number, fetch.rows_per_shard)
            md5, sha256 = _hashes_of(entry, published) if fetch.verify else hashes.NONE
            captions = entry.captions or ("",)
            yield Request(shard, index, entry.url, captions[0], entry.identity, md5, sha256)


def about(config: TableConfig, tables: list[TableFile]) -> Size:
    """About how much `requests` asks for: lines are counted, and the first thousand rows stand for the others.

    Raises:
        UserError: as `requests`.
    """
    first = list(islice(_chosen(config, tables, CountedNotes([])), _FIRST))
    areas = [
        area for _, each in first if (area := _pixels(columns_of(each.record, each.roles.rest)))
    ]
    is_by_pixels = len(areas) * 2 >= max(1, len(first))
    picture = _BYTES_PER_PIXEL * sum(areas) / len(areas) if is_by_pixels else _BYTES_PER_PICTURE
    asked = len(first)
    if asked == _FIRST:  # there may be more, of which as large a share is asked for
        last, _ = first[-1]
        asked = int(_rows(config, tables) * _FIRST / (last + 1))
        asked = asked if config.limit is None else min(asked, config.limit)
    return Size(asked, int(picture * asked), is_by_pixels)


def rows_about(config: TableConfig, tables: list[TableFile]) -> int | None:
    """About how many rows `requests` passes, without reading them; None where nobody can tell.

    Of text the lines are counted, some of which may be part of a longer record.
    """
    if config.sample is not None or config.shard is not None:
        return None
    rows = _rows(config, tables)
    return rows if config.limit is None else min(rows, config.limit)


def _rows(config: TableConfig, tables: list[TableFile]) -> int:
    if tables[0].file_type == "parquet":
        return parquet.count(tables)
    headers = 0 if config.columns or tables[0].file_type == "jsonl" else 1
    return sum(max(0, _lines(table) - headers) for table in tables)


def _lines(table: TableFile) -> int:
    """The ends of lines; of a large compressed file about as many, from its beginning."""
    size = table.path.stat().st_size
    if table.compression and size > _HEAD_BYTES:
        with table.path.open("rb") as file:
            head = io.BytesIO(file.read(_HEAD_BYTES))
        return _ends(_OPENED[table.compression](head)) * size // _HEAD_BYTES
    with open_text(table) as stream:
        return _ends(stream)


def _ends(stream: IO[bytes] | io.BufferedIOBase) -> int:
    """The ends of lines in a stream, up to where it is cut off or damaged."""
    lines = 0
    with suppress(OSError, EOFError, zlib.error):
        while block := stream.read(_BLOCK_BYTES):
            lines += block.count(b"\n")
    return lines


def _chosen(
    config: TableConfig, tables: list[TableFile], notes: CountedNotes
) -> Iterator[tuple[int, Entry]]:
    """The rows with an address that ``dataset.leave_out``, ``sample``, ``shard`` and ``limit`` leave."""
    is_asked_for = _choice(config, tables)
    chosen = 0
    for number, entry in enumerate(entries(config, tables, notes)):
        if entry.roles.url is None:
            raise UserError(
                f"{entry.table.path} has the columns {', '.join(entry.record)}, and none is known to hold "
                "addresses to fetch from; type dataset.url_column=NAME, or fetch.enabled=false"
            )
        if entry.excluded:
            notes.add(f"rows not fetched, {entry.excluded}", entry.place)
            continue
        if not is_asked_for(entry):
            continue
        chosen += 1
        if entry.url:
            yield number, entry
        else:
            notes.add("rows not fetched, without an address", entry.place)
        if chosen == config.limit:
            return


def _choice(config: TableConfig, tables: list[TableFile]) -> Callable[[Entry], bool]:
    """Whether ``dataset.sample`` and ``dataset.shard`` choose a row, by its key; rows come in their order."""
    if config.sample is None and config.shard is None:
        return lambda _: True
    keys, files = RowKeys(), key_files(tables)
    return lambda entry: is_chosen(entry.key(keys, files[entry.table]), config)


def _hashes_of(entry: Entry, published: HashFile | None) -> Hashes:
    """What the row says of its picture, else what ``fetch.hashes`` does."""
    said = hashes_in(*(text_of(entry.record[name]) for name in _HASHES if name in entry.record))
    if published is None or said != hashes.NONE:
        return said
    return published.find(entry.url)


def _pixels(columns: dict[str, Any]) -> int:
    """Width times height as the table says; 0 where it does not, or says nonsense."""
    try:
        sides = [int(columns.get(f"source_{name}") or 0) for name in ("width", "height")]
    except (ValueError, TypeError, OverflowError):
        return 0
    return sides[0] * sides[1] if min(sides) > 0 else 0
