"""Rules on the CLIP similarity of picture and caption."""

from __future__ import annotations

from decimal import Decimal

import numpy as np
import pandas as pd

from curate.filters.config import ClipSimilarityConfig
from curate.filters.rule import Rule, below

NAME = "clip_similarity"


def rules(config: ClipSimilarityConfig, cut: float | None) -> list[Rule]:
    """No number, no verdict; then the cut, or the fraction, or neither.

    Args:
        config: which of them.
        cut: similarity below which a pair goes; None where there is no absolute cut.
    """
    found = [
        Rule(
            "no_similarity",
            "no_similarity: CLIP gave no number",
            lambda pairs: pairs["clip_similarity"].isna(),
        )
    ]
    if cut is not None:
        found.append(below(NAME, lambda pairs: pairs["clip_similarity"], cut))
    elif config.fraction is not None:
        found.append(most_similar(config.fraction))
    return found


def most_similar(fraction: float) -> Rule:
    """Keep exactly floor(n x fraction) pairs, at least one; of equal ones the first by key.

    The fraction is the decimal number that was typed: 0.29 of 100 are 29, which binary floating
    point makes 28.
    """

    def drops(pairs: pd.DataFrame) -> pd.Series:
        keep = max(1, int(len(pairs) * Decimal(str(fraction))))
        similarity = pairs["clip_similarity"].to_numpy()
        if keep >= len(pairs):
            return pd.Series(False, index=pairs.index)
        last = np.partition(similarity, -keep)[-keep]
        dropped = similarity < last
        rows = np.flatnonzero(similarity == last)
        tied = pairs[["key", "caption_index"]].iloc[rows].assign(row=rows)
        order = tied.sort_values(["key", "caption_index"])["row"].to_numpy()
        dropped[order[keep - int((similarity > last).sum()) :]] = True
        return pd.Series(dropped, index=pairs.index)

    def cut(kept: pd.DataFrame) -> float | None:
        return float(kept["clip_similarity"].min()) if len(kept) else None

    return Rule(NAME, f"{NAME} not among the top {fraction:g}", drops, cut)
