"""The columns of a ledger that two curations are compared by, also of ledgers of earlier versions."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from curate.report.diff.results import KEPT
from curate.run import ledger
from curate.run.ledger import DROPPED, UNREADABLE
from curate.run.provenance import curate_command
from curate.run.schema import UserError

_NEEDED = ("key", "caption", "kept")
_TEXTS = ("key", "source", "caption", "sha256", "reason", "rule", "split", "status", "duplicate_of")
_NOT_MISSED = ("status", "duplicate_of")  # of columns that a ledger lacks
_NUMBERS = ("caption_index", "clip_similarity")
COLUMNS = (*_TEXTS, *_NUMBERS, "kept", "clip_model")


@dataclass(frozen=True, slots=True)
class Ledger:
    """One side of a comparison.

    Attributes:
        pairs: a row for each pair, numbered from 0: ``_TEXTS`` as text without missing values, ``caption_index``,
            ``clip_similarity`` (NaN where it was not measured), ``kept``; ``rule`` is "kept" where none dropped it.
        clip: the CLIP of the similarities; "" where the ledger does not say.
        missing: the columns that it lacks, of those that are compared.
    """

    pairs: pd.DataFrame
    clip: str = ""
    missing: tuple[str, ...] = ()


def read(curate_dir: Path) -> Ledger:
    """The ledger of a finished curation.

    Raises:
        FileNotFoundError: it has none.
        UserError: a part is damaged, or it has no keys, captions and verdicts.
    """
    if lacking := [name for name in _NEEDED if name not in ledger.columns(curate_dir)]:
        raise UserError(
            f"the ledger of {curate_dir.parent} has no column {lacking[0]}, so there is nothing to compare; to write it "
            f"again, type: {curate_command(curate_dir.parent)}"
        )
    return of(ledger.read(curate_dir, COLUMNS))


def of(table: pd.DataFrame) -> Ledger:
    """From the columns of a ledger, of which only ``key, caption, kept`` have to be there."""
    missing = tuple(name for name in COLUMNS if name not in {*table, *_NOT_MISSED})
    pairs = pd.DataFrame({"kept": table["kept"].to_numpy(bool)})
    for name in _TEXTS:
        pairs[name] = _texts(table[name]).to_numpy() if name in table else ""
    pairs["clip_similarity"] = (
        table["clip_similarity"].to_numpy("float64") if "clip_similarity" in table else float("nan")
    )
    if "caption_index" in table:
        pairs["caption_index"] = table["caption_index"].to_numpy("int64")
    else:
        pairs["caption_index"] = pairs.groupby("key").cumcount()
    # The first word of a reason is its rule's name; ledgers of earlier versions have no rules, or in some parts only.
    unnamed = (pairs["rule"] == "") & ~pairs["kept"]
    pairs.loc[unnamed, "rule"] = pairs.loc[unnamed, "reason"].str.extract(r"^(\w+)")[0].fillna("?")
    pairs.loc[pairs["kept"], "rule"] = KEPT
    unsaid = (pairs["status"] == "") & ~pairs["kept"]
    unread = pairs["rule"] == UNREADABLE
    pairs.loc[unsaid, "status"] = DROPPED
    pairs.loc[unsaid & unread, "status"] = UNREADABLE
    return Ledger(pairs, _clip(table), missing)


def _texts(column: pd.Series) -> pd.Series:
    return column.astype("str").where(column.notna(), "")


def _clip(table: pd.DataFrame) -> str:
    if "clip_model" not in table:
        return ""
    return " and ".join(sorted(map(str, table["clip_model"].dropna().unique())))
