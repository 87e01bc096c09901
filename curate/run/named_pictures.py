"""Which pictures a text names: by key, by the sha256 of their bytes or a file with these, or by their file's name."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from curate.run.files import sha256_of
from curate.run.printable import one_line
from curate.run.schema import UserError

if TYPE_CHECKING:
    import pandas as pd

MOST = 20  # pictures of one file name
IDENTITY = ("key", "sha256")
_NAMES = ("file_name", "location")  # columns that hold a file's name

Rows = Callable[[tuple[str, ...]], "pd.DataFrame"]
"""Reads columns of ledgers and tables of trainings, those of them that are there; ``IDENTITY`` always is."""


def find(text: str, rows: Rows) -> pd.DataFrame:
    """The ``IDENTITY`` of the pictures that a text names, each once; no rows where it names none.

    A name may be typed with more folders than the ledger has (``/data/mine/cats/1.jpg``), with fewer (``1.jpg``) and
    without its suffix. A file that is there is known by its bytes; by its name only where no bytes were read of it.

    Raises:
        UserError: a file of that name was read, with other bytes than it has now; or more than ``MOST`` have it.
    """
    identities, path = rows(IDENTITY), Path(text).expanduser()
    if len(found := identities[identities["key"] == text]):
        return _once(found)
    digest = sha256_of(path) if path.is_file() else text.lower()
    if len(found := identities[(identities["sha256"] == digest) & (digest != "")]):
        return _once(found)
    named = rows((*IDENTITY, *_NAMES))
    if path.is_file():
        found = named[_called(named, str(path.resolve()))]
        unread = found[found["sha256"] == ""]
        if len(found) and unread.empty:
            raise UserError(
                f"{path} is not the file that was read: one of that name has the key {_listed(found)}, and its bytes "
                f"have another sha256 ({found['sha256'].iloc[0]:.12}, now {digest:.12}). If you mean that one, type its key"
            )
        found = unread
    else:
        found = named[_called(named, str(path).replace("\\", "/"))]
    found = _once(found)
    if len(found) > MOST:
        raise UserError(
            f"{len(found)} pictures are called {one_line(text)!r}: {_listed(found)}. Type one of these keys, or more of "
            "the path"
        )
    return found


def _once(rows: pd.DataFrame) -> pd.DataFrame:
    return rows[[*IDENTITY]].drop_duplicates(ignore_index=True)


def _listed(rows: pd.DataFrame) -> str:
    keys = [one_line(str(key)) for key in dict.fromkeys(rows["key"])]
    return ", ".join(keys[:5]) + (" and others" if len(keys) > 5 else "")


def _called(rows: pd.DataFrame, path: str) -> pd.Series:
    """Which rows have a file of this name: with its folders as far as they go; else with fewer; else without suffix."""
    columns = [rows[name].fillna("").astype(str) for name in _NAMES if name in rows]
    none = rows["key"].isna() & False
    parts = [part for part in path.split("/") if part]
    if not parts:
        return none
    for first in range(len(parts)):  # the longest name first
        if (found := _any(columns, "/".join(parts[first:]), none)).any():
            return found
    inside = "/".join(parts)
    for found in (
        _any([names.str.endswith(f"/{inside}") for names in columns], True, none),
        _any(
            [
                names.str.contains(rf"(?:^|/){re.escape(inside)}\.[^./]+$", regex=True)
                for names in columns
            ],
            True,
            none,
        ),
    ):
        if found.any():
            return found
    return none


def _any(columns: Sequence[pd.Series], value: object, none: pd.Series) -> pd.Series:
    """Rows in which one of the columns has this value."""
    found = none
    for column in columns:
        found = found | (column == value)
    return found
