"""Rules on the language of a caption."""

from __future__ import annotations

import numpy as np
import pandas as pd

from curate.filters.config import UNDETERMINED, LanguageFilterConfig
from curate.filters.rule import Rule


def rules(config: LanguageFilterConfig) -> list[Rule]:
    """Those that the configuration switches on.

    They need the column ``language``, and ``language_confidence`` where a confidence is asked for.
    """
    found = []
    if config.accepted is not None:
        accepted, said = set(config.accepted), " or ".join(config.accepted)
        found.append(
            Rule(
                "language",
                f"language is not {said}",
                lambda pairs: ~languages(pairs, config.min_confidence).isin(accepted),
            )
        )
    if config.rejected is not None:
        rejected, said = set(config.rejected), " or ".join(config.rejected)
        found.append(
            Rule(
                "language",
                f"language is {said}",
                lambda pairs: languages(pairs, config.min_confidence).isin(rejected),
            )
        )
    return found


def languages(pairs: pd.DataFrame, min_confidence: float) -> pd.Series:
    """The code of each caption; "und" where none was found, or with less confidence than that."""
    codes = pairs["language"].astype("str")
    sure = codes.notna() & (codes != "")
    if min_confidence > 0:
        sure &= pairs["language_confidence"].astype(np.float32) >= np.float32(min_confidence)
    return codes.where(sure, UNDETERMINED)
