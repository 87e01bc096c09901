"""Tables beside those that are read: their rows keep their own pictures, as those of another split do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from curate.readers.matching.claims import Row
from curate.readers.tables import TableConfig
from curate.readers.tables import files as table_files
from curate.readers.tables.files import TableFile
from curate.run.remote import is_remote
from curate.run.schema import UserError


def tables_beside(config: TableConfig, tables: list[TableFile]) -> list[TableFile]:
    """The other tables of the same type in the folders of the files or the glob that ``config`` names, on this machine.

    A folder is read whole, so that nothing in it is beside the data set.
    """
    if is_remote(config.path) or Path(config.path).is_dir():
        return []
    known = {table.local.resolve() for table in tables}
    suffixes = {table.path.suffix for table in tables}
    found = []
    for folder in sorted({table.local.parent for table in tables}):
        for path in sorted(folder.iterdir()):
            if path.suffix not in suffixes or path.name[0] in "._" or path.resolve() in known:
                continue
            with suppress(UserError, OSError):  # no table, or a damaged one
                found += table_files.find(str(path), config.file_type, [])
    return found


def rows_beside(
    tables: list[TableFile], rows: Callable[[TableFile], Iterator[Row]]
) -> Iterator[Row]:
    """What the rows of tables beside say of their pictures by path and address.

    Their identifiers say nothing: each table may number its rows for itself, and two versions of one
    table number the same pictures. A table with other columns says nothing at all.
    """
    for table in tables:
        with suppress(UserError):
            for row in rows(table):
                yield replace(row, key="", ids=(), identity="", is_beside=True)
