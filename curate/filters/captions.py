"""What becomes of an image with several captions: enough of them have to pass, then all or one stay."""

from __future__ import annotations

import pandas as pd

from curate.filters.config import CaptionsConfig
from curate.filters.rule import Rule


def rules(config: CaptionsConfig) -> list[Rule]:
    """Those that the configuration switches on; they look at the pairs that all others left."""
    found = []
    if config.at_least > 1:
        reason = f"too_few_captions: fewer than {config.at_least} passed"
        found.append(Rule("too_few_captions", reason, lambda pairs: _fewer(pairs, config.at_least)))
    if config.keep == "best":
        reason = "not_best_caption: another one is more similar"
        found.append(Rule("not_best_caption", reason, _not_best))
    return found


def _fewer(pairs: pd.DataFrame, count: int) -> pd.Series:
    return pairs.groupby("key")["key"].transform("size") < count


def _not_best(pairs: pd.DataFrame) -> pd.Series:
    """All but the most similar caption of each image; of equal ones the first stays."""
    order = pairs.sort_values(["clip_similarity", "caption_index"], ascending=[False, True])
    return order.duplicated("key").reindex(pairs.index)
