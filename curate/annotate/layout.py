"""The columns and types that all annotation parts of a run have together, from their footers alone.

A part knows only its own rows: whole numbers in it may be fractions in the next, and where none is missing here
some are there. What is decided of a pair, and how the ledger stores it, must not depend on where a part ends; so
every part is read under the one ``Layout``.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from curate.annotate import embeddings
from curate.annotate.parts import current_names, footer, read_part


@dataclass(frozen=True, slots=True)
class Layout:
    """How each part of a run is read.

    Attributes:
        schema: the columns of all parts under today's names, without embeddings.
        missing: the columns that lack a value somewhere, or are not in every part.
        mixed: those of several types that do not fit together, which are read as text.
        categories: the values of each dictionary, in the order in which they come.
        rows: of each part.
    """

    schema: pa.Schema
    missing: frozenset[str]
    mixed: frozenset[str]
    categories: dict[str, tuple[str, ...]]
    rows: tuple[int, ...]

    @classmethod
    def of(cls, parts: Sequence[Path]) -> Layout:
        """The layout of ``parts``.

        Raises:
            UserError: a part's footer is damaged.
        """
        known = _Columns()
        rows = tuple([known.add(path) for path in parts])
        schema, mixed = known.unified()
        dictionaries = [field.name for field in schema if pa.types.is_dictionary(field.type)]
        categories = {name: known.categories(name, parts) for name in dictionaries}
        return cls(schema, known.missing(), mixed, categories, rows)


class _Columns:
    """What the footers of parts say of each column."""

    def __init__(self) -> None:
        self._types: dict[str, dict[pa.DataType, None]] = defaultdict(
            dict
        )  # in order of appearance
        self._range: dict[tuple[str, pa.DataType], tuple[Any, Any]] = {}
        self._values: dict[str, dict[Any, None]] = defaultdict(dict)
        self._unclear: dict[str, set[Path]] = defaultdict(
            set
        )  # parts whose dictionary has to be read
        self._missing: set[str] = set()
        self._parts: dict[str, int] = defaultdict(int)
        self._count = 0  # of parts that have rows

    def add(self, path: Path) -> int:
        """Note a part; the number of its rows."""
        found = footer(path)
        schema = found.schema.to_arrow_schema()
        names = current_names(schema.names)
        statistics = _statistics(found, schema)
        self._count += found.num_rows > 0
        for field in schema:
            name = names[field.name]
            if name in embeddings.COLUMNS:
                continue
            self._types[name][field.type] = None
            self._parts[name] += found.num_rows > 0
            groups = statistics[field.name]
            if any(group is None or group.null_count for group in groups):
                self._missing.add(name)
            self._note_values(path, name, field.type, groups)
        return found.num_rows

    def _note_values(
        self, path: Path, name: str, kind: pa.DataType, groups: Sequence[pq.Statistics | None]
    ) -> None:
        """The range of whole numbers, and the values of a dictionary where the footer tells them."""
        ends = [
            (group.min, group.max) for group in groups if group is not None and group.has_min_max
        ]
        if pa.types.is_integer(kind):
            both = [*self._range.get((name, kind), ()), *(end for pair in ends for end in pair)]
            if both:
                self._range[name, kind] = min(both), max(both)
        elif pa.types.is_dictionary(kind):
            if len(ends) == len(groups) and all(low == high for low, high in ends):
                self._values[name] |= dict.fromkeys(low for low, _ in ends)
            else:
                self._unclear[name].add(path)

    def missing(self) -> frozenset[str]:
        """The columns of which some part with rows lacks a value, or all values."""
        absent = {name for name, count in self._parts.items() if count < self._count}
        return frozenset(self._missing | absent)

    def unified(self) -> tuple[pa.Schema, frozenset[str]]:
        """The one type of each column, and those that become text, as nothing holds all their values."""
        try:
            schema = self._promoted(self._types)
            self._refuse_inexact(schema)
            return schema, frozenset()
        except (pa.ArrowTypeError, pa.ArrowInvalid):
            several = frozenset(
                name for name, kinds in self._types.items() if len({*kinds} - {pa.null()}) > 1
            )
            as_text = {
                name: [pa.string()] if name in several else kinds
                for name, kinds in self._types.items()
            }
            return self._promoted(as_text), several

    @staticmethod
    def _promoted(types: dict[str, Any]) -> pa.Schema:
        """The narrowest type that holds the values of all types of a column.

        Raises:
            pa.ArrowTypeError, pa.ArrowInvalid: there is none.
        """
        schemas = [pa.schema([(name, kind)]) for name, kinds in types.items() for kind in kinds]
        return pa.unify_schemas(schemas, promote_options="permissive")

    def _refuse_inexact(self, schema: pa.Schema) -> None:
        """Raise ``pa.ArrowInvalid`` where a whole number has more digits than the float it would become."""
        for (name, kind), ends in self._range.items():
            pa.array(ends, kind).cast(schema.field(name).type)

    def categories(self, name: str, parts: Iterable[Path]) -> tuple[str, ...]:
        """The values of a dictionary, each once."""
        if not self._unclear[name]:
            return tuple(self._values[name])
        return tuple(dict.fromkeys(value for path in parts for value in _dictionary(path, name)))


def _statistics(found: pq.FileMetaData, schema: pa.Schema) -> dict[str, list[pq.Statistics | None]]:
    """By column what each row group says of it; None where it says nothing.

    A file lists the values of nested columns one after another, each with a path such as ``name.list.element``.
    A column may be called so as well, thus they are counted: each field has as many as its type says.
    """
    owners = [field.name for field in schema for _ in range(_leaves(field.type))]
    known: dict[str, list[pq.Statistics | None]] = {name: [] for name in schema.names}
    for number in range(found.num_row_groups):
        group = found.row_group(number)
        for place, owner in zip(range(group.num_columns), owners, strict=True):
            said = group.column(place).statistics
            told = said is not None and said.has_null_count
            known[owner].append(said if told else None)
    return known


def _leaves(kind: pa.DataType) -> int:
    """How many columns of a file hold a type's values."""
    if isinstance(kind, pa.BaseExtensionType):
        return _leaves(kind.storage_type)
    return sum(_leaves(kind.field(place).type) for place in range(kind.num_fields)) or 1


def _dictionary(path: Path, name: str) -> Iterator[str]:
    """The values of a part's dictionary."""
    table = read_part(path, [name])
    if name in table.column_names:
        for chunk in table[name].unify_dictionaries().chunks[:1]:
            yield from chunk.dictionary.to_pylist()
