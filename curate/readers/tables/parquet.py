"""The rows of a parquet file as Python's values, whatever types the columns have; pictures stay in the file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from curate.readers.columns import twice
from curate.readers.counted_notes import CountedNotes
from curate.readers.tables.files import TableFile
from curate.run.remote_files import RemotePath
from curate.run.schema import UserError

if TYPE_CHECKING:
    import pyarrow as pa

_BATCH_ROWS = 4096
MARK = "\ufeff"  # a byte order mark, which some programs leave in the name of the first column


def columns(table: TableFile, notes: CountedNotes) -> Iterator[tuple[int, dict[str, list[Any]]]]:
    """Batches of rows in order: how many, and their values by column, without columns that hold bytes at any depth, which are noted.

    Raises:
        UserError: two columns have one name.
        OSError: the file is damaged.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(_source(table)) as file:
            names = _checked_names(table, file.schema_arrow)
            used = [field.name for field in file.schema_arrow if not _holds_bytes(field.type)]
            for name in [name for name in names if name not in used]:
                notes.add(f"columns of bytes left out, {name!r}", table.path.name)
            for batch in file.iter_batches(_BATCH_ROWS, columns=used):
                read = [names[name] for name in batch.schema.names]
                values = map(_values, batch.columns)
                yield batch.num_rows, dict(zip(read, values, strict=True))
    except pa.ArrowException as error:
        raise OSError(error) from error


def count(tables: Sequence[TableFile]) -> int:
    """The number of rows of parquet files, from their metadata.

    Raises:
        UserError: a file is damaged, two columns of it have one name, or a column holds text in one
            file and something else in another.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    total = 0
    seen: dict[str, tuple[bool, TableFile]] = {}
    for table in tables:
        try:
            with pq.ParquetFile(_source(table)) as file:
                total += file.metadata.num_rows
                schema = file.schema_arrow
        except (pa.ArrowException, OSError) as error:
            raise UserError(f"{table.path} is damaged ({error}); download it again") from error
        for stored, name in _checked_names(table, schema).items():
            kind = _of_values(schema.field(stored).type)
            if pa.types.is_null(kind):
                continue
            was_text, other = seen.setdefault(name, (_is_text(kind), table))
            if was_text != _is_text(kind):
                raise UserError(
                    f"column {name!r} has another type in {table.path} than in {other.path}; "
                    "convert one of them, or curate the files as two data sets"
                )
    return total


def _source(table: TableFile) -> Any:
    """What Arrow opens."""
    return table.path.open("rb") if isinstance(table.path, RemotePath) else table.path


def _checked_names(table: TableFile, schema: pa.Schema) -> dict[str, str]:
    """Each column's name in the file, and its name without a byte order mark."""
    names = [name.strip(MARK) for name in schema.names]
    if repeated := twice(name or "''" for name in names):  # Arrow finds none of those
        raise UserError(f"{table.path} has two columns of one name: {repeated}; rename one")
    return dict(zip(schema.names, names, strict=True))


def _of_values(kind: pa.DataType) -> pa.DataType:
    """The type of a column's values, however they are encoded: pandas' categorical is a dictionary."""
    import pyarrow as pa

    if pa.types.is_dictionary(kind) or pa.types.is_run_end_encoded(kind):
        return _of_values(kind.value_type)
    return kind


def _is_text(kind: pa.DataType) -> bool:
    import pyarrow as pa

    tests = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
    return any(test(kind) for test in tests)


def _is_number(kind: pa.DataType) -> bool:
    """Whether NumPy makes the same Python numbers of the values."""
    import pyarrow as pa

    return pa.types.is_integer(kind) or pa.types.is_float32(kind) or pa.types.is_float64(kind)


def _holds_bytes(kind: pa.DataType) -> bool:
    """Whether values are bytes or have some inside, as pictures stored as ``{"bytes", "path"}`` have."""
    import pyarrow as pa

    kind = _of_values(kind)
    if isinstance(kind, pa.UuidType):  # read as text
        return False
    if isinstance(kind, pa.BaseExtensionType):
        return _holds_bytes(kind.storage_type)
    if pa.types.is_nested(kind):
        return any(_holds_bytes(kind.field(i).type) for i in range(kind.num_fields))
    tests = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view)
    return any(test(kind) for test in (*tests, pa.types.is_fixed_size_binary))


def _values(column: pa.Array) -> list[Any]:
    """Python's values; dates beyond those that Python knows as Arrow writes them."""
    import pyarrow as pa

    kind = column.type
    if _is_text(kind) or (_is_number(kind) and not column.null_count):
        return column.to_numpy(zero_copy_only=False).tolist()  # several times as fast
    try:
        return column.to_pylist()
    except (ValueError, OverflowError):
        if pa.types.is_nested(column.type):
            raise
        return column.cast(pa.string()).to_pylist()
