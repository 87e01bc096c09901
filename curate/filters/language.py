"""Rules on the language of a caption."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from curate.filters.checks import check_exclusive
from curate.filters.rule import Rule
from curate.run.schema import check

if TYPE_CHECKING:
    import pandas as pd

UNDETERMINED = "und"  # ISO 639's code for an unknown language


@dataclass
class LanguageFilterConfig:
    """The languages to keep or to drop; with neither list, languages are not even detected.

    Attributes:
        accepted: codes to keep: ISO 639-1, or 639-3 where there is none, or "und".
        rejected: codes to drop, instead of ``accepted``.
        min_confidence: a language detected with less confidence counts as "und", undetermined.
    """

    accepted: list[str] | None = None
    rejected: list[str] | None = None
    min_confidence: float = 0.0

    def __post_init__(self) -> None:
        key = "filters.language"
        for name in ("accepted", "rejected"):
            codes = getattr(self, name)
            valid = codes is None or (codes and all(re.fullmatch("[a-z]{2,3}", c) for c in codes))
            check(bool(valid), f"{key}.{name}", codes, "null or a list of codes, such as [en,de]")
        check_exclusive(self, key, "accepted", "rejected")
        least = self.min_confidence
        check(0 <= least <= 1, f"{key}.min_confidence", least, "0 ... 1")


def rules(config: LanguageFilterConfig) -> list[Rule]:
    """The rules that the configuration switches on.

    They read the column ``language``, and ``language_confidence`` if ``min_confidence`` is above 0.
    """

    def is_one_of(codes: list[str], pairs: pd.DataFrame) -> pd.Series:
        return languages(pairs, config.min_confidence).isin(codes)

    found = []
    if (accepted := config.accepted) is not None:
        reason = f"language is not {' or '.join(accepted)}"
        found.append(Rule("language", reason, lambda pairs: ~is_one_of(accepted, pairs)))
    if (rejected := config.rejected) is not None:
        reason = f"language is {' or '.join(rejected)}"
        found.append(Rule("language", reason, lambda pairs: is_one_of(rejected, pairs)))
    return found


def languages(pairs: pd.DataFrame, min_confidence: float) -> pd.Series:
    """The code of each caption; "und" if none was detected, or with less than ``min_confidence``."""
    import numpy as np

    codes = pairs["language"].astype("str")
    known = codes.notna() & (codes != "")
    if min_confidence > 0:
        known &= pairs["language_confidence"].astype(np.float32) >= np.float32(min_confidence)
    return codes.where(known, UNDETERMINED)
