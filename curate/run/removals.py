"""Removals: the pictures that were removed from a run; later curations leave them out for good."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curate.run import ledger
from curate.run.files import read_json, write_certified
from curate.run.schema import UserError

if TYPE_CHECKING:
    import pandas as pd

REASON = "removed"

_FILE = "removed.json"
# Names of columns with a picture's address; other addresses name its author or licence.
_ADDRESS = re.compile(r"url|uri(?![a-z])", re.IGNORECASE)
_OF_ANOTHER = re.compile(r"licen[cs]e|rights|author|creator|owner|user|profile", re.IGNORECASE)
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Removals:
    """All pictures that were ever listed for removal from a run.

    Attributes:
        keys: as they were listed.
        urls: as they were listed; compared with the source's columns of addresses.
        sha256: listed ones, and those of the files that listed keys and urls led to.
        records: one for each removal: when, by what, the list's sha256, how many it named and found.
        pending: whether shards and ledger have yet to be rewritten.
    """

    keys: frozenset[str] = frozenset()
    urls: frozenset[str] = frozenset()
    sha256: frozenset[str] = frozenset()
    records: tuple[dict[str, Any], ...] = ()
    pending: bool = False

    def drops(self, pairs: pd.DataFrame) -> pd.Series:
        """A mask (N,) over rows with ``key, sha256`` and perhaps urls: True where the picture was removed."""
        mask = pairs["key"].isin(self.keys) | pairs["sha256"].isin(self.sha256)
        for name in url_columns(pairs.columns) if self.urls else ():
            mask |= pairs[name].isin(self.urls)
        return mask


def url_columns(names: Iterable[str]) -> list[str]:
    """The columns that hold addresses of a picture, or of a page that shows it.

    >>> url_columns(["URL", "image_url", "OriginalLandingURL", "licence_url", "author_url", "caption"])
    ['URL', 'image_url', 'OriginalLandingURL']
    """
    return [name for name in names if _ADDRESS.search(name) and not _OF_ANOTHER.search(name)]


def read_removals(curate_dir: Path) -> Removals:
    """The removals of a run; empty if nothing was removed.

    Raises:
        UserError: the file is damaged; without it, removed pictures would come back.
    """
    path = curate_dir / _FILE
    if not path.is_file():
        return Removals()
    content = read_json(path)
    if content is None:
        raise UserError(
            f"{path} is damaged; fetch it from a backup, or delete it and type all removals again at once"
        )
    sets = {name: frozenset(content[name]) for name in ("keys", "urls", "sha256")}
    return Removals(**sets, records=tuple(content["records"]), pending=content["pending"])


def write_removals(curate_dir: Path, known: Removals) -> None:
    """Write ``removed.json``."""
    sets = {name: sorted(getattr(known, name)) for name in ("keys", "urls", "sha256")}
    write_certified(curate_dir / _FILE, {**asdict(known), **sets})


def read_list(path: Path, by: str) -> set[str]:
    """The lines of a list, without empty ones.

    Raises:
        FileNotFoundError: there is no such file.
        UserError: it is empty, no text, or holds what is no sha256 where such are asked for.
    """
    if not path.exists():
        raise FileNotFoundError(f"there is no {path}; write one, with one of the {by} in each line")
    try:
        lines = {line.strip() for line in path.read_text("utf-8-sig").splitlines()} - {""}
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is no UTF-8 text: {error}") from error
    if not lines:
        raise UserError(f"{path} is empty; write one of the {by} in each line")
    if by != "sha256":
        return lines
    lines = {line.lower() for line in lines}
    if wrong := sorted(line for line in lines if not _SHA256.fullmatch(line)):
        raise UserError(f"{path}: {wrong[0]!r} is no sha256 of 64 hex digits")
    return lines


def note(
    curate_dir: Path, by: str, listed: set[str], list_sha256: str, copies: bool = False
) -> dict[str, Any]:
    """Record a removal; from here on, a killed removal can be completed.

    Args:
        curate_dir: a finished curation.
        by: ``keys``, ``urls`` or ``sha256``.
        listed: the keys, urls or hashes.
        list_sha256: of the list's file, for the record.
        copies: also remove the pictures of their duplicate groups.

    Returns:
        The record; if this completes an interrupted removal, the record of that one.

    Raises:
        UserError: addresses are listed, and the ledger holds none.
    """
    known = read_removals(curate_dir)
    rows = identities(curate_dir)
    present = values(rows, by)
    if by == "urls" and not present:
        raise UserError(_no_addresses(curate_dir))
    named, asked = asked_for(rows, by, listed, copies)
    interrupted = known.pending
    more = {
        name: getattr(known, name) | getattr(asked, name) for name in ("keys", "urls", "sha256")
    }
    known = replace(known, **more, pending=True)
    same = {"by": by, "list_sha256": list_sha256, "copies": copies}
    record = known.records[-1] if interrupted and known.records else {}
    if not same.items() <= record.items():
        found = len(listed & present)
        record = same | {"listed": len(listed), "found": found} | _outcome(rows, known, named)
        known = replace(known, records=(*known.records, record))
    write_removals(curate_dir, known)
    return record


def asked_for(
    rows: pd.DataFrame, by: str, listed: set[str], copies: bool
) -> tuple[pd.Series, Removals]:
    """Which rows of ``identities`` a list names (a mask), and the removals with those files' hashes."""
    asked = replace(Removals(), **{by: frozenset(listed)})
    named = asked.drops(rows)
    if copies:
        named |= rows.index.isin(_copies(rows, named).index)
    files = frozenset(rows.loc[named, "sha256"]) - {""}
    return named, replace(asked, sha256=asked.sha256 | files)


def _no_addresses(curate_dir: Path) -> str:
    return (
        f"the ledger of {curate_dir.parent} has no addresses, so none of the list can be found; name "
        "the pictures by --keys or --sha256 (python -m curate.explain RUN KEY shows both)"
    )


def identities(curate_dir: Path) -> pd.DataFrame:
    """The columns of the ledger that identify pictures, and their verdicts."""
    asked = ["key", "sha256", "duplicate_group", "copy_group", "kept", "status", "split", "shard"]
    return ledger.read(curate_dir, [*asked, *url_columns(ledger.columns(curate_dir))])


def _copies(rows: pd.DataFrame, named: pd.Series) -> pd.Series:
    """The keys of all rows that are copies of a named one; siblings, which share its side only, are not."""
    # Ledgers of earlier versions have copies alone in their duplicate groups.
    column = "copy_group" if "copy_group" in rows else "duplicate_group"
    groups = set(rows.loc[named, column]) - {""}
    return rows.loc[rows[column].isin(groups), "key"]


def _outcome(rows: pd.DataFrame, known: Removals, named: pd.Series) -> dict[str, Any]:
    """How much is removed, and how many copies of it are kept."""
    banned, copied = known.drops(rows), _copies(rows, named)
    goes = rows[banned & rows["kept"]]
    return {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "pictures": int(goes["key"].nunique()),
        "pairs": len(goes),
        "copies_left": int(copied[~banned[copied.index]].nunique()),
    }


def values(rows: pd.DataFrame, by: str) -> set[str]:
    """All keys, urls or sha256 (``by``) that the rows of ``identities`` have."""
    names = url_columns(rows.columns) if by == "urls" else [by.removesuffix("s")]
    found = (value for name in names for value in rows[name])
    return {value for value in found if isinstance(value, str) and value}
