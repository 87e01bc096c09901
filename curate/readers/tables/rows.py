"""Stream the rows of a table's file as dicts: delimited text, JSON lines or parquet."""

from __future__ import annotations

import csv
import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from curate.readers.columns import encodable, is_missing
from curate.readers.counted_notes import CountedNotes
from curate.readers.csv_delimiter import detect_delimiter
from curate.readers.json_object import json_object
from curate.readers.tables import TableConfig
from curate.readers.tables.files import TableFile, open_text
from curate.run.schema import UserError

Row = tuple[int, dict[str, Any]]
"""Number of the line, or of the row in parquet, from 1 on; values by column."""

_BATCH_ROWS = 4096
_MAX_BAD_LINES = 1000  # if none of the first lines can be read, the file has another format


def rows(table: TableFile, config: TableConfig, notes: CountedNotes) -> Iterator[Row]:
    """The rows of one file in order, with one line or one batch of rows in memory.

    Values from text files are text, those from parquet have its types; nested ones are lists and
    dicts. A line with another number of fields, or that is not a JSON object, is left out and noted.

    Raises:
        UserError: the file is damaged, or no line can be read.
    """
    number = 0
    try:
        for number, record in _READ[table.file_type](table, config, notes):
            yield number, record
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


def _from_delimited(table: TableFile, config: TableConfig, notes: CountedNotes) -> Iterator[Row]:
    with open_text(table) as stream:
        lines = _decoded(stream, table, notes)
        lines, delimiter = detect_delimiter(lines) if table.file_type == "csv" else (lines, "\t")
        fields = (
            _quoted(lines, delimiter, table, notes) if config.quotes else _plain(lines, delimiter)
        )
        first = next(fields, None)
        if first is None:
            return
        names = _header(first, config.columns)
        if len(set(names)) < len(names):
            raise UserError(
                f"{table.path} has two columns of one name: {', '.join(names)}; rename one"
            )
        good = bad = 0
        for number, values in _after(first, fields, names):
            if len(values) == len(names):
                good += 1
                yield number, dict(zip(names, values, strict=True))
                continue
            bad += 1
            notes.add("lines with another number of columns", f"{table.path.name}:{number}")
            if not good and bad == _MAX_BAD_LINES:
                break
        if bad and not good:
            raise UserError(
                f"{table.path} has {len(first[1])} columns in its first line, expected {len(names)} "
                f"({', '.join(names)}); type dataset.columns=[...] with their names in order"
            )


def _header(first: tuple[int, list[str]], columns: list[str] | None) -> list[str]:
    """The columns' names: the first line if it holds names, in any order, else ``columns``."""
    if columns is None or set(first[1]) == set(columns):
        return first[1]
    return columns


def _after(
    first: tuple[int, list[str]], rest: Iterator[tuple[int, list[str]]], header: list[str]
) -> Iterator[tuple[int, list[str]]]:
    """All lines of data, including the first unless it is the header."""
    if first[1] != header:
        yield first
    yield from rest


def _plain(lines: Iterable[str], delimiter: str) -> Iterator[tuple[int, list[str]]]:
    for number, line in enumerate(lines, start=1):
        if line.strip():
            yield number, line.rstrip("\r\n").split(delimiter)


def _quoted(
    lines: Iterable[str], delimiter: str, table: TableFile, notes: CountedNotes
) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(lines, delimiter=delimiter)
    before = 0
    for values in reader:
        number, before = before + 1, reader.line_num
        if before > number:
            notes.add("records of several lines", f"{table.path.name}:{number}")
        if values:
            yield number, values


def _from_jsonl(table: TableFile, config: TableConfig, notes: CountedNotes) -> Iterator[Row]:
    good = bad = 0
    with open_text(table) as stream:
        for number, line in enumerate(_decoded(stream, table, notes), start=1):
            if not line.strip():
                continue
            try:
                record = json_object(line)
            except ValueError:
                bad += 1
                notes.add("lines that are not a JSON object", f"{table.path.name}:{number}")
                if not good and bad == _MAX_BAD_LINES:
                    break
                continue
            good += 1
            yield number, {name: _as_text(value) for name, value in record.items()}
    if bad and not good:
        raise UserError(f"{table.path} has no JSON object in any line; write one object per line")


def _as_text(value: Any) -> Any:
    """Scalars as text, since a column of JSON lines may hold several types."""
    if isinstance(value, list):
        return [_as_text(item) for item in value]
    if is_missing(value) or isinstance(value, dict):
        return value
    return encodable(str(value))


def _from_parquet(table: TableFile, config: TableConfig, notes: CountedNotes) -> Iterator[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        with pq.ParquetFile(table.path) as file:
            names = [field.name for field in file.schema_arrow if not _holds_bytes(field.type)]
            for name in [name for name in file.schema_arrow.names if name not in names]:
                notes.add(f"columns of bytes left out, {name!r}", table.path.name)
            for batch in file.iter_batches(_BATCH_ROWS, columns=names):
                for record in batch.to_pylist():
                    number += 1
                    yield number, record
    except pa.ArrowException as error:
        raise OSError(error) from error


def count(tables: Sequence[TableFile]) -> int:
    """The number of rows of parquet files, from their metadata.

    Raises:
        UserError: a file is damaged, or a column holds text in one and numbers in another.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    total = 0
    seen: dict[str, tuple[bool, TableFile]] = {}
    for table in tables:
        try:
            with pq.ParquetFile(table.path) as file:
                total += file.metadata.num_rows
                schema = file.schema_arrow
        except (pa.ArrowException, OSError) as error:
            raise UserError(f"{table.path} is damaged ({error}); download it again") from error
        for column in schema:
            if pa.types.is_null(column.type):
                continue
            is_text = pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
            was_text, other = seen.setdefault(column.name, (is_text, table))
            if was_text != is_text:
                raise UserError(
                    f"column {column.name!r} has another type in {table.path} than in {other.path}; "
                    "convert one of them, or curate the files as two data sets"
                )
    return total


def _holds_bytes(kind: Any) -> bool:
    import pyarrow as pa

    if pa.types.is_nested(kind):
        return any(_holds_bytes(kind.field(i).type) for i in range(kind.num_fields))
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _decoded(stream: Iterable[bytes], table: TableFile, notes: CountedNotes) -> Iterator[str]:
    for number, line in enumerate(stream, start=1):
        try:
            text = line.decode("utf-8")
        except UnicodeDecodeError:
            text = line.decode("utf-8", errors="replace")
            place = f"{table.path.name}:{number}"
            notes.add("lines that are not UTF-8, with \ufffd for what cannot be decoded", place)
        yield text.removeprefix("\ufeff") if number == 1 else text


_READ = {
    "csv": _from_delimited,
    "tsv": _from_delimited,
    "jsonl": _from_jsonl,
    "parquet": _from_parquet,
}
