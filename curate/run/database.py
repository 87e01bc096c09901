"""Connections to DuckDB, which sorts, joins and groups tables that are larger than memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import duckdb


@dataclass(frozen=True, slots=True)
class Limits:
    """What a connection may use.

    Attributes:
        scratch: the folder for what does not fit in memory; made when needed, and empty afterwards.
        memory_bytes: beyond it, rows go to ``scratch``. It bounds DuckDB's own buffers, not what Python holds.
        threads: of a query; no result depends on them.
    """

    scratch: Path
    memory_bytes: int = 2_000_000_000
    threads: int = 2


@contextmanager
def connect(limits: Limits) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open a database in memory; nothing is fetched from a network, and no extension is loaded.

    Rows come in no order unless a query asks for one: every query whose order matters says ``ORDER BY``.
    """
    import duckdb

    settings: dict[str, str | bool | int | float | list[str]] = {
        "memory_limit": f"{limits.memory_bytes}B",
        "threads": limits.threads,
        "temp_directory": str(limits.scratch),
        "preserve_insertion_order": False,
        "autoinstall_known_extensions": False,
        "autoload_known_extensions": False,
    }
    with duckdb.connect(":memory:", config=settings) as connection:
        yield connection


def listed(paths: Sequence[Path]) -> str:
    """Paths as a list in SQL: a view cannot be created with parameters.

    >>> listed([Path("it's")])
    "['it''s']"
    """
    return "[" + ", ".join(quoted(path) for path in paths) + "]"


def quoted(text: object) -> str:
    """A text as a literal in SQL."""
    return "'" + str(text).replace("'", "''") + "'"


def named(column: str) -> str:
    """A column's name as an identifier in SQL, whatever signs it has."""
    return '"' + column.replace('"', '""') + '"'
