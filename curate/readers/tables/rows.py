"""Stream the rows of a table's file in blocks, by column: delimited text, JSON lines or parquet."""

from __future__ import annotations

import csv
import zlib
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import chain, islice
from typing import Any

from curate.readers.columns import encodable, twice
from curate.readers.counted_notes import CountedNotes
from curate.readers.csv_delimiter import detect_delimiter
from curate.readers.json_object import Pairs, json_object, unique_fields
from curate.readers.tables import TableConfig, parquet, text
from curate.readers.tables.files import TableFile
from curate.readers.tables.parquet import MARK
from curate.run.schema import UserError

Block = tuple[Sequence[int], dict[str, list[Any]]]
"""Neighbouring rows: the numbers of their lines, or of the rows in parquet, from 1 on; their values by column."""

FIRST_ROWS = 1000
"""How many rows at most the first block has: they are read ahead, to learn what the columns are."""

_BLOCK_ROWS = 4096

_END = "\0end"  # behind the last line: a quote that is still open swallows it
_MAX_LINES = 1000  # of a record; one that is longer holds others, between two stray quotes
_MAX_BAD_LINES = 1000  # if none of the first lines can be read, the file has another format


def blocks(table: TableFile, config: TableConfig, notes: CountedNotes) -> Iterator[Block]:
    """The rows of one file in order, with one block of rows in memory.

    Values from csv and tsv are text, those from JSON lines and parquet have their types; nested ones are
    lists and dicts. A line with another number of fields, or that is not a JSON object, is left out and
    noted. Behind the first block, a JSON line with fields that none before it had begins a new one.

    Raises:
        UserError: the file is damaged, no line can be read, or two columns have one name.
    """
    number = 0
    try:
        for block in _READ[table.file_type](table, config, notes):
            number = block[0][-1]
            yield block
    except (PermissionError, UserError):
        raise
    except csv.Error as error:
        raise UserError(
            f"{table.path} cannot be read after line {number} ({error}): a quote is not closed, or "
            "lines end in a bare carriage return. If quotes are ordinary characters in this table, type "
            "dataset.quotes=false; otherwise save it with newlines as line ends"
        ) from error
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(
            f"{table.path} is damaged after row {number} ({error}); download it again"
        ) from error


def _from_delimited(table: TableFile, config: TableConfig, notes: CountedNotes) -> Iterator[Block]:
    with text.lines(table, config.encoding, notes) as lines:
        lines, delimiter = detect_delimiter(lines) if table.file_type == "csv" else (lines, "\t")
        fields = (
            _quoted(lines, delimiter, table, notes) if config.quotes else _plain(lines, delimiter)
        )
        first = next(fields, None)
        if first is None:
            return
        names = _header(first, config.columns)
        if repeated := twice(names):
            raise UserError(f"{table.path} has two columns of one name: {repeated}; rename one")
        good = bad = 0
        for rows in _cut(_after(first, fields, names)):
            block = [row for row in rows if len(row[1]) == len(names)]
            if len(block) < len(rows):
                for number, values in rows:
                    if len(values) != len(names):
                        bad += 1
                        what = "lines with another number of columns"
                        notes.add(what, f"{table.path.name}:{number}")
            good += len(block)
            if block:
                numbers, values = zip(*block, strict=True)
                yield numbers, dict(zip(names, map(list, zip(*values, strict=True)), strict=True))
            elif not good and bad >= _MAX_BAD_LINES:
                break
        if bad and not good:
            raise UserError(
                f"{table.path} has {len(first[1])} columns in its first line, expected {len(names)} "
                f"({', '.join(names)}); type dataset.columns=[...] with their names in order"
            )


def _cut(rows: Iterator[Any]) -> Iterator[list[Any]]:
    """Lists of rows; those ahead of what cannot be read come before its error."""
    size = FIRST_ROWS
    while True:
        found: list[Any] = []
        try:
            found.extend(islice(rows, size))
        except Exception:
            if found:
                yield found
            raise
        if not found:
            return
        yield found
        size = _BLOCK_ROWS


def _header(first: tuple[int, list[str]], columns: list[str] | None) -> list[str]:
    """The columns' names: the first line if it holds names, in any order, else ``columns``."""
    names = [name.strip(MARK) for name in first[1]]
    if columns is None or set(names) == set(columns):
        return names
    return columns


def _after(
    first: tuple[int, list[str]], rest: Iterator[tuple[int, list[str]]], header: list[str]
) -> Iterator[tuple[int, list[str]]]:
    """All lines of data, including the first unless it is the header."""
    if [name.strip(MARK) for name in first[1]] != header:
        yield first
    yield from rest


def _plain(lines: Iterable[str], delimiter: str) -> Iterator[tuple[int, list[str]]]:
    for number, line in enumerate(lines, start=1):
        if line.strip():
            yield number, line.rstrip("\r\n").split(delimiter)


def _quoted(
    lines: Iterable[str], delimiter: str, table: TableFile, notes: CountedNotes
) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(chain(lines, [_END]), delimiter=delimiter)
    before = 0
    for values in reader:
        number, before = before + 1, reader.line_num
        if values == [_END]:
            return
        if before - number > _MAX_LINES or (values and values[-1].endswith(_END)):
            raise csv.Error(f"the record that begins in line {number} has no end")
        if before > number:
            notes.add("records of several lines", f"{table.path.name}:{number}")
        if values:
            yield number, values


def _from_jsonl(table: TableFile, config: TableConfig, notes: CountedNotes) -> Iterator[Block]:
    known: dict[str, None] = {}
    for rows in _cut(_records(table, config, notes)):
        is_first, start = not known, 0
        for end, (_, record) in enumerate(rows):
            if record.keys() <= known.keys():
                continue
            if end > start and not is_first:
                yield _by_column(rows[start:end], known)
                start = end
            known |= dict.fromkeys(record)
        yield _by_column(rows[start:], known)


def _by_column(rows: Sequence[tuple[int, dict[str, Any]]], names: Iterable[str]) -> Block:
    numbers, records = zip(*rows, strict=True)
    return numbers, {name: [record.get(name) for record in records] for name in names}


def _records(
    table: TableFile, config: TableConfig, notes: CountedNotes
) -> Iterator[tuple[int, dict[str, Any]]]:
    good = bad = 0
    with text.lines(table, config.encoding, notes) as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                record = json_object(line, partial(_unique_fields, f"{table.path}:{number}"))
            except UserError:
                raise
            except ValueError:
                bad += 1
                notes.add("lines that are not a JSON object", f"{table.path.name}:{number}")
                if not good and bad == _MAX_BAD_LINES:
                    break
                continue
            good += 1
            yield number, {name.strip(MARK): _encodable(value) for name, value in record.items()}
    if bad and not good:
        raise UserError(f"{table.path} has no JSON object in any line; write one object per line")


def _unique_fields(place: str, fields: Pairs) -> dict[str, Any]:
    try:
        return unique_fields(fields)
    except ValueError as error:
        raise UserError(f"in {place} {error}; rename one") from error


def _encodable(value: Any) -> Any:
    """A value with text that UTF-8 can express; numbers stay numbers."""
    if isinstance(value, list):
        return [_encodable(item) for item in value]
    return encodable(value) if isinstance(value, str) else value


def _from_parquet(table: TableFile, config: TableConfig, notes: CountedNotes) -> Iterator[Block]:
    start = 1
    for count, columns in parquet.columns(table, notes):
        if count:
            yield range(start, start + count), columns
        start += count


_READ = {
    "csv": _from_delimited,
    "tsv": _from_delimited,
    "jsonl": _from_jsonl,
    "parquet": _from_parquet,
}
