"""Rules on an image's captions taken together, after each was judged alone."""

from __future__ import annotations

import pandas as pd

from curate.filters.config import CaptionsConfig
from curate.filters.rule import Rule


def rules(config: CaptionsConfig) -> list[Rule]:
    """Those that the configuration switches on."""
    found = []
    if config.at_least > 1:
        reason = f"too_few_captions: fewer than {config.at_least} pass"
        found.append(
            Rule("too_few_captions", reason, lambda pairs: _passing(pairs) < config.at_least)
        )
    if config.keep == "best":
        found.append(Rule("not_best_caption", "not_best_caption", _beaten))
    return found


def _passing(pairs: pd.DataFrame) -> pd.Series:
    return pairs.groupby("key")["key"].transform("size")


def _beaten(pairs: pd.DataFrame) -> pd.Series:
    """True where another caption of the image is more similar, or as similar and earlier."""
    order = pairs.sort_values(
        ["key", "clip_similarity", "caption_index"], ascending=[True, False, True]
    )
    return order.duplicated("key").reindex(pairs.index)
