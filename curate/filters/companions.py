"""The rule on pictures that come beside a picture: one that cannot be used takes its pair with it.

To leave out the companion alone would train a pair as if its mask or its condition were meant to be missing.
"""

from __future__ import annotations

import pandas as pd

from curate.filters.rule import Reason, Rule
from curate.run.companions import ERROR

NAME = "companion"
ANY = Reason(NAME, NAME)
"""The one rule for all that may be wrong; in the ledger, the reason of each pair says what is."""


def errors(pairs: pd.DataFrame) -> pd.Series:
    """What is wrong with the companions of each pair, "" for nothing."""
    if ERROR not in pairs:
        return pd.Series("", pairs.index, dtype="str")
    return pairs[ERROR].fillna("").astype("str")


def rule() -> Rule:
    """The rule ``ANY``."""
    return Rule(ANY.name, ANY.reason, lambda pairs: errors(pairs) != "")


def reason(error: str) -> str:
    """The ledger's reason for a pair with this error."""
    return f"{NAME}: {error}"
