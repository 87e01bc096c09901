"""Rules on images with several captions: how many must pass, and whether all or only the best stay."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from curate.filters.rule import Rule
from curate.run.schema import check

if TYPE_CHECKING:
    import pandas as pd


@dataclass
class CaptionsConfig:
    """Which captions of an image to keep.

    Attributes:
        keep: "all" captions that pass the other rules, or only the "best", the most similar one.
        at_least: drop an image if fewer of its captions pass the other rules.
    """

    keep: str = "all"
    at_least: int = 1

    def __post_init__(self) -> None:
        check(self.keep in ("all", "best"), "filters.captions.keep", self.keep, "all, best")
        check(self.at_least >= 1, "filters.captions.at_least", self.at_least, ">= 1")


def rules(config: CaptionsConfig) -> list[Rule]:
    """The rules that the configuration switches on; they come after all other rules."""
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
    """All but the most similar caption of each image; of ties the first stays."""
    order = pairs.sort_values(["clip_similarity", "caption_index"], ascending=[False, True])
    return order.duplicated("key").reindex(pairs.index)
