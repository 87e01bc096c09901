"""The matches of a table's rows on disk, built again when the table or the folder of pictures has changed."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from curate.run.files import temporary
from curate.run.schema import UserError

_FORMAT = 4  # increase it when the format or the rules of matching change, so that older files are built again
_ATTEMPTS = 3


def opened(
    path: Path, digest: str, fill: Callable[[sqlite3.Connection], None]
) -> sqlite3.Connection:
    """The database at ``path``, made if it has to be, for reading.

    Another command may replace the file by that of its own table at any time.

    Raises:
        UserError: the file cannot be written, or is replaced again and again.
    """
    for _ in range(_ATTEMPTS):
        ensure(path, digest, fill)
        connection = _connect(path)
        if _digest_in(connection) == f"{_FORMAT} {digest}":
            return connection
        connection.close()
    raise UserError(
        f"another command keeps replacing the index {path}; type dataset.index=FILE with a file of its "
        "own for each"
    )


def ensure(path: Path, digest: str, fill: Callable[[sqlite3.Connection], None]) -> None:
    """Let ``fill`` make the database at ``path``, unless the one there was made from the same input.

    Args:
        path: the file; it is renamed to this when complete.
        digest: a hash of all input.
        fill: fills the empty database.

    Raises:
        UserError: the file cannot be written.
    """
    digest = f"{_FORMAT} {digest}"
    if _digest_of(path) == digest:
        return
    part = temporary(path)
    try:
        part.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(b"")
    except OSError as error:
        raise _not_written(path, error) from error
    try:
        with closing(sqlite3.connect(part)) as connection:
            # It is renamed when complete, so that nothing of it has to survive a crash.
            connection.executescript("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;")
            fill(connection)
            connection.execute("CREATE TABLE built_from (digest TEXT)")
            connection.execute("INSERT INTO built_from VALUES (?)", (digest,))
            connection.commit()
        part.replace(path)
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode & 0xFF not in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR):
            raise
        raise _not_written(path, error) from error
    finally:
        part.unlink(missing_ok=True)


def _not_written(path: Path, error: Exception) -> UserError:
    return UserError(
        f"the index of dataset.images_dir cannot be written to {path} ({error}); type "
        "dataset.index=FILE with a file that can be written"
    )


def _digest_of(path: Path) -> str:
    """The digest that the file was built with; "" if it is missing or another kind of file."""
    if not path.is_file():
        return ""
    with closing(_connect(path)) as connection:
        return _digest_in(connection)


def _digest_in(connection: sqlite3.Connection) -> str:
    try:
        return connection.execute("SELECT digest FROM built_from").fetchone()[0]
    except sqlite3.DatabaseError:
        return ""


def _connect(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(
        f"{path.resolve().as_uri()}?mode=ro&immutable=1", uri=True, check_same_thread=False
    )
