"""Columns of a batch of a table's rows, as Python's values, and what all its rows say, a column at a time.

A function called for each row and column takes longer than everything else that a pass over a table does. So each
function here looks once at the types of a column's values: those of one plain type are converted together, and
all others one by one, by the function of ``column_roles`` and ``readers.columns`` that says what is right.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Any

from curate.readers.candidate import clean_caption
from curate.readers.columns import captions_in, is_missing, plain
from curate.readers.tables.column_roles import (
    IDS,
    WHOLE,
    ColumnRoles,
    text_of,
)
from curate.readers.tables.files import TableFile

_NONE = type(None)
_TEXT = frozenset((str, _NONE))
_INT64 = 2**63


@dataclass(frozen=True, slots=True)
class Batch:
    """Some neighbouring rows of one file.

    Attributes:
        table: the file.
        file: the file's path, relative to the folder of the table.
        numbers: of each row's first line in the file (of the row, in parquet), from 1 on.
        columns: the values by column; None is a missing one.
        roles: what the columns are.
        excluded: for each row the column and value of ``dataset.leave_out`` that it has, "" for none; () where no
            row is left out.
    """

    table: TableFile
    file: str
    numbers: Sequence[int]
    columns: dict[str, list[Any]]
    roles: ColumnRoles
    excluded: Sequence[str] = ()

    def __len__(self) -> int:
        return len(self.numbers)

    def rows(self, start: int, end: int) -> Batch:
        """Some of the rows."""
        return Batch(
            self.table,
            self.file,
            self.numbers[start:end],
            {name: values[start:end] for name, values in self.columns.items()},
            self.roles,
            self.excluded[start:end],
        )

    def texts(self, name: str | None) -> list[str]:
        """`text_of` of each value of a column; "" where there is no such column."""
        values = self.columns.get(name) if name else None
        return [""] * len(self) if values is None else texts_of(values)

    def identifiers(self) -> list[str]:
        """For each row the data set's own name for it, the first of the known ones; "" for none."""
        columns = [self.texts(name) for name in IDS if name in self.columns]
        if not columns:
            return [""] * len(self)
        if len(columns) == 1:
            return columns[0]
        return [next(filter(None, row), "") for row in zip(*columns, strict=True)]

    def captions(self) -> list[tuple[str, ...]]:
        """`captions_of` each row."""
        names = [name for name in self.roles.captions if name in self.columns]
        each = [captions_of_each(self.columns[name]) for name in names]
        if not each:
            return [()] * len(self)
        if len(each) == 1:
            return each[0]
        rows = (dict.fromkeys(c for found in row for c in found) for row in zip(*each, strict=True))
        return [tuple(filter(None, found)) or tuple(found) for found in rows]

    def records(self) -> Iterator[dict[str, Any]]:
        """The rows as dicts."""
        return as_dicts(list(self.columns), list(self.columns.values()), len(self))

    def said(self, named: dict[str, list[str]]) -> Iterator[dict[str, Any]]:
        """What each row says of its picture, for the ledger: ``named``, then as `columns_of` has it.

        One row at a time: Python's garbage collector looks for cycles whenever a few hundred dicts are alive.
        """
        names, columns = list(named), list(named.values())
        sparse = []  # columns from which values are missing
        for name, ledger_name in self.roles.rest.items():
            if name in self.columns:
                values = plain_values(self.columns[name], is_whole=ledger_name in WHOLE)
                sparse += [values] if None in values else []
                names.append(ledger_name)
                columns.append(values)
        rows = as_dicts(names, columns, len(self))
        return _without_none(rows, sparse) if sparse else rows


def as_dicts(names: list[str], columns: list[list[Any]], count: int) -> Iterator[dict[str, Any]]:
    """The rows of columns."""
    if not names:
        return ({} for _ in range(count))
    return map(dict, map(zip, repeat(names), zip(*columns, strict=True)))


def _without_none(
    rows: Iterator[dict[str, Any]], sparse: list[list[Any]]
) -> Iterator[dict[str, Any]]:
    """The same rows without missing values, which only the columns ``sparse`` have."""
    holes = (None in values for values in zip(*sparse, strict=True))
    for row, has_hole in zip(rows, holes, strict=True):
        yield {k: v for k, v in row.items() if v is not None} if has_hole else row


def texts_of(values: list[Any]) -> list[str]:
    """`text_of` of each value."""
    if _TEXT.issuperset(map(type, values)):
        return [value.strip() if value else "" for value in values]
    return [text_of(value) for value in values]


def captions_of_each(values: list[Any]) -> list[tuple[str, ...]]:
    """Of each value, a text or a list of texts, the captions, each once; empty ones only if there is no other."""
    if _TEXT.issuperset(map(type, values)) and _is_encodable(values):
        return [(clean_caption(value),) if value is not None else () for value in values]
    found = map(captions_in, values)
    return [tuple(filter(None, captions)) or captions for captions in found]


def plain_values(values: list[Any], *, is_whole: bool) -> list[Any]:
    """The values of a column for the ledger: None for missing ones, else `plain`, and whole numbers as int.

    Args:
        values: Python's.
        is_whole: whether 7.0 is 7.
    """
    kinds = set(map(type, values))
    kinds.discard(_NONE)
    if kinds <= {str} and _is_encodable(values):
        return values
    if kinds == {int} and _fits(values):
        return values
    if kinds == {float} and not is_whole:
        if None not in values and all(map(math.isfinite, values)):
            return values
        return [None if value is None or not math.isfinite(value) else value for value in values]
    return [_plain(value, is_whole=is_whole) for value in values]


def _plain(value: Any, *, is_whole: bool) -> Any:
    if is_missing(value):
        return None
    value = plain(value)
    return int(value) if is_whole and isinstance(value, float) and value.is_integer() else value


def _is_encodable(values: list[Any]) -> bool:
    """Whether UTF-8 can express all texts, so that `encodable` changes none."""
    try:
        "".join(filter(None, values)).encode()
    except UnicodeEncodeError:
        return False
    return True


def _fits(values: list[Any]) -> bool:
    """Whether all whole numbers are of 64 bits."""
    present = [value for value in values if value is not None] if None in values else values
    return min(present) >= -_INT64 and max(present) < _INT64
