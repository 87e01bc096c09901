"""The rule on pictures that come beside a picture: one that cannot be used takes its pair with it.

To leave out the companion alone would train a pair as if its mask or its condition were meant to be missing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from curate.filters.rule import Rule
from curate.run.companions import ERROR

if TYPE_CHECKING:
    import pandas as pd

NAME = "companion"


def rules(pairs: pd.DataFrame) -> list[Rule]:
    """One for each thing that is wrong with a companion of ``pairs``; none where nothing is."""
    if ERROR not in pairs:
        return []
    errors = pairs[ERROR].fillna("").astype(str)
    return [
        Rule(NAME, f"{NAME}: {error}", lambda left, error=error: errors[left.index] == error)
        for error in sorted(set(errors) - {""})
    ]
