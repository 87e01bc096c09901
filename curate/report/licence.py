"""Read the licence of each pair from its source's columns, for the credits and the report."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING

from curate.run.database import quoted

if TYPE_CHECKING:
    import pandas as pd

    from curate.run.ledger_table import LedgerTable

COLUMNS = ("licence", "license", "LICENSE")  # the first that states a licence counts
UNKNOWN = ("", "?", "unknown")  # LAION writes "?"


def licence_of(frame: pd.DataFrame) -> pd.Series:
    """The licence of each row (N,) as text, "" where none is stated; numbers become text."""
    import pandas as pd

    found = pd.Series("", index=frame.index, dtype="str")
    for name in COLUMNS:
        if name in frame:
            text = frame[name].astype("str").where(frame[name].notna(), "")
            found = found.where(found != "", text.mask(text.isin(UNKNOWN), ""))
    return found


def in_sql(ledger: LedgerTable) -> str:
    """The same as an expression on a ledger, which has one of ``COLUMNS``."""
    found = []
    for name in (name for name in COLUMNS if name in ledger):
        text = f"{ledger.column(name)}::VARCHAR"
        if ledger.type_of(name) == "BOOLEAN":
            text = f"CASE {ledger.column(name)} WHEN true THEN 'True' WHEN false THEN 'False' END"
        found.append(f"CASE WHEN {text} NOT IN ({', '.join(map(quoted, UNKNOWN))}) THEN {text} END")
    return f"coalesce({', '.join(found)}, '')"


def query(columns: Collection[str], licences: Iterable[str]) -> str:
    """The query for rows whose ``licence_of`` is one of ``licences``, on a frame with ``columns``."""
    wanted, found, unstated = list(licences), [], ""
    for name in (name for name in COLUMNS if name in columns):
        found.append(f"({unstated}{_is_one_of(name, wanted)})")
        unstated += f"{_is_one_of(name, UNKNOWN)} and "
    return f"({' or '.join(found)})"


def unknown_query(columns: Collection[str]) -> str:
    """The query for rows whose licence is not stated."""
    present = [name for name in COLUMNS if name in columns]
    return f"({' and '.join(_is_one_of(name, UNKNOWN) for name in present)})"


def _is_one_of(name: str, values: Iterable[str]) -> str:
    return f"{name}.astype('str').where({name}.notna(), '').isin({list(values)!r})"
