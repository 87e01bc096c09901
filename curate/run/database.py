"""Connections to DuckDB, which sorts, joins and groups tables that are larger than memory."""

from __future__ import annotations

import atexit
import errno
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from curate.run import cores
from curate.run.memory import for_tables
from curate.run.schema import UserError
from curate.run.scratch import own_folder
from curate.run.units import size

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa


_PATTERN = re.compile(r"([*?\[])")


@dataclass(frozen=True, slots=True)
class Limits:
    """What a connection may use.

    Attributes:
        scratch: the folder for what does not fit in memory; it is made, and empty afterwards. Several processes,
            also of several machines, may use one.
        memory_bytes: beyond it, rows go to ``scratch``. It bounds DuckDB's own buffers, not what Python holds.
        threads: of a query; no result depends on them.
        more_memory: what to do where it is not enough.
        more_scratch: what to type where the disk of ``scratch`` is full; "" leaves that to ``lacking``, which knows the
            run's own folder.
    """

    scratch: Path
    memory_bytes: int = 2_000_000_000
    threads: int = 2
    more_memory: str = (
        "a curation takes more with engine.memory=SIZE, and needs less with engine.threads=1"
    )
    more_scratch: str = ""

    @classmethod
    def in_temporary(cls, folder: Path) -> Limits:
        """Those of a command without keys of the group ``engine``, with its scratch in a temporary ``folder``."""
        return cls(
            folder / "scratch",
            for_tables(),
            cores.usable(),
            "type the command where there is more; it takes 40 % of what the machine has, or the container if that is "
            "less",
            "set TMPDIR to a folder on a disk with more room, and type the same command again",
        )


@contextmanager
def connect(limits: Limits) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open a database in memory; nothing is fetched from a network, and no extension is loaded.

    Rows come in no order unless a query asks for one: every query whose order matters says ``ORDER BY``.

    Raises:
        OSError: ``limits.scratch`` cannot be made; or in the block, a query fills its disk.
        UserError: in the block, a query needs more memory than it may have, or fills the disk of ``limits.scratch``
            and ``limits.more_scratch`` says what to type.
    """
    import duckdb

    with own_folder(limits.scratch) as folder:
        settings: dict[str, str | bool | int | float | list[str]] = {
            "memory_limit": f"{limits.memory_bytes}B",
            "threads": limits.threads,
            "temp_directory": _as_duckdb_reads(folder),
            "preserve_insertion_order": False,
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
        }
        with (
            _explained(limits, folder.name),
            duckdb.connect(":memory:", config=settings) as connection,
        ):
            yield connection


@contextmanager
def _explained(limits: Limits, folder: str) -> Iterator[None]:
    """Say what a query lacks as the rest of the program does; DuckDB says it in the words of its own settings.

    ``folder`` is the name of the connection's own, in which an error's file lies if it lies in ``limits.scratch``.
    """
    import duckdb

    reason = os.strerror(errno.ENOSPC)
    full: Exception = OSError(errno.ENOSPC, reason, str(limits.scratch))
    if limits.more_scratch:
        full = UserError(f"{limits.scratch}: {reason}; {limits.more_scratch}")
    try:
        yield
    except duckdb.OutOfMemoryException as error:
        if "max_temp_directory_size" in str(error):  # by default what is free on the disk
            raise full from error
        raise UserError(
            f"tables need more memory than the {size(limits.memory_bytes)} that they may have; {limits.more_memory}"
        ) from error
    except duckdb.IOException as error:
        if reason not in str(error):
            raise
        if folder in str(error):
            raise full from error
        raise OSError(errno.ENOSPC, str(error)) from error  # of another file, which DuckDB names


def parquet_files(paths: Sequence[Path], *, numbered: bool = False) -> str:
    """The rows of parquet files of these names, for ``FROM``: a view cannot be created with parameters.

    DuckDB takes a name for a pattern of names, and a folder ``split=a`` for a column ``split``: neither is meant here.

    >>> parquet_files([Path("/it's/a[1].parquet")])
    "read_parquet(['/it''s/a[[]1].parquet'], hive_partitioning = false)"

    Args:
        paths: of the files.
        numbered: with ``file_row_number``, which begins at 0 in each file.
    """
    names = ", ".join(quoted(_PATTERN.sub(r"[\1]", _as_duckdb_reads(path))) for path in paths)
    more = ", file_row_number = true" if numbered else ""
    return f"read_parquet([{names}], hive_partitioning = false{more})"


def _as_duckdb_reads(path: Path) -> str:
    """A path that means the same to DuckDB: it takes a tilde at the start for a home, and a backslash for a slash."""
    path = path.absolute()
    if "\\" in path.name:
        path = _link_to(path)
    elif "\\" in str(path):
        path = _link_to(path.parent) / path.name
    return str(path)


@cache
def _link_to(folder: Path) -> Path:
    """A link to a folder or file, by a name without backslashes; it is there until the program ends.

    Raises:
        UserError: the folder of temporary files has a backslash in its name as well.
    """
    place = Path(tempfile.mkdtemp(prefix="link-"))
    atexit.register(shutil.rmtree, place, ignore_errors=True)
    if "\\" in str(place):
        raise UserError(
            f"DuckDB takes the backslash in {folder} for a slash, and the one in TMPDIR={place.parent}, where a link "
            "could be made, as well: rename one of the two folders, or set TMPDIR"
        )
    link = place / "link"
    link.symlink_to(folder, target_is_directory=True)
    return link


def quoted(text: object) -> str:
    """A text as a literal in SQL."""
    return "'" + str(text).replace("'", "''") + "'"


def named(column: str) -> str:
    """A column's name as an identifier in SQL, whatever signs it has."""
    return '"' + column.replace('"', '""') + '"'


@contextmanager
def registered(connection: duckdb.DuckDBPyConnection, name: str, table: pa.Table) -> Iterator[None]:
    """Let queries of this connection call an Arrow table by ``name``; views that outlive it must not."""
    connection.register(name, table)
    try:
        yield
    finally:
        connection.unregister(name)


def blocks(
    connection: duckdb.DuckDBPyConnection, query: str, rows: int = 1 << 17
) -> Iterator[pa.Table]:
    """The rows of a query in blocks, for results that are larger than memory.

    The connection may be asked other things meanwhile; the query does not see tables that it ``registered``.
    """
    import pyarrow as pa

    with connection.cursor() as cursor:
        for batch in cursor.sql(query).to_arrow_reader(rows):
            yield pa.Table.from_batches([batch])
