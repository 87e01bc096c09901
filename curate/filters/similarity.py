"""Rules on the CLIP similarity of picture and caption."""

from __future__ import annotations

import math

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
        found.append(below(NAME, lambda pairs: pairs["clip_similarity"], cut, ".6g"))
    elif config.fraction is not None:
        found.append(most_similar(config.fraction))
    return found


def most_similar(fraction: float) -> Rule:
    """Keep exactly floor(n x fraction) pairs, at least one; of equal ones the first by key."""

    def drops(pairs: pd.DataFrame) -> pd.Series:
        keep = max(1, math.floor(len(pairs) * fraction + 1e-9))
        order = pairs.sort_values(
            ["clip_similarity", "key", "caption_index"], ascending=[False, True, True]
        )
        dropped = pd.Series(True, index=pairs.index)
        dropped[order.index[:keep]] = False
        return dropped

    return Rule(NAME, f"{NAME} not among the top {fraction:g}", drops)
