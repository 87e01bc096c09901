"""The rules that drop pairs: each looks at annotations only and says why."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from curate import duplicates
from curate.config import CaptionFilterConfig, FiltersConfig, ImageFilterConfig


@dataclass(frozen=True, slots=True)
class Rule:
    """A named reason to drop pairs.

    Attributes:
        name: one word, the row of the funnel and the beginning of every reason.
        reasons: the pairs that are left => for each why it goes, "" where it stays.
    """

    name: str
    reasons: Callable[[pd.DataFrame], pd.Series]


def rules(config: FiltersConfig, cut: float | None) -> list[Rule]:
    """All rules that the configuration switches on, in the order in which they are applied.

    Args:
        config: the bounds.
        cut: similarity below which a pair goes; None where there is no absolute cut.
    """
    found = [
        Rule("no_caption", lambda pairs: _mark(~pairs["has_caption"], "no_caption")),
        Rule("empty_caption", lambda pairs: _mark(pairs["caption"] == "", "empty_caption")),
        *_image_rules(config.image),
        *_caption_rules(config.caption),
        Rule("no_similarity", _no_similarity),
    ]
    if cut is not None:
        found.append(_below("clip_similarity", lambda pairs: pairs["clip_similarity"], cut, ".6g"))
    elif config.clip_similarity.fraction is not None:
        found.append(most_similar(config.clip_similarity.fraction))
    if config.exact_duplicates:
        found.append(Rule("duplicate", _duplicate))
    return found


def most_similar(fraction: float) -> Rule:
    """Keep exactly floor(n x fraction) pairs, at least one; of equal ones the first by key."""

    def reasons(pairs: pd.DataFrame) -> pd.Series:
        keep = max(1, math.floor(len(pairs) * fraction + 1e-9))
        order = pairs.sort_values(
            ["clip_similarity", "key", "caption_index"], ascending=[False, True, True]
        )
        dropped = pd.Series(True, index=pairs.index)
        dropped[order.index[:keep]] = False
        return _mark(dropped, f"clip_similarity not among the top {fraction:g}")

    return Rule("clip_similarity", reasons)


def _image_rules(config: ImageFilterConfig) -> list[Rule]:
    found = []
    if config.min_side_px is not None:
        found.append(_below("min_side_px", _min_side, config.min_side_px))
    if config.max_aspect is not None:
        found.append(_above("aspect", _aspect, config.max_aspect))
    return found


def _caption_rules(config: CaptionFilterConfig) -> list[Rule]:
    found = []
    for unit, measure in (("characters", _characters), ("words", _words)):
        low, high = getattr(config, f"min_{unit}"), getattr(config, f"max_{unit}")
        if low is not None:
            found.append(_below(f"caption_{unit}", measure, low))
        if high is not None:
            found.append(_above(f"caption_{unit}", measure, high))
    return found


_Measure = Callable[[pd.DataFrame], pd.Series]


def _below(name: str, measure: _Measure, bound: float, digits: str = "g") -> Rule:
    reason = f"{name} < {bound:{digits}}"
    # float32, as similarities are stored: 0.28 itself must pass a cut of 0.28
    return Rule(name, lambda pairs: _mark(measure(pairs) < np.float32(bound), reason))


def _above(name: str, measure: _Measure, bound: float) -> Rule:
    return Rule(name, lambda pairs: _mark(measure(pairs) > bound, f"{name} > {bound:g}"))


def _mark(dropped: pd.Series, reason: str) -> pd.Series:
    return dropped.map({True: reason, False: ""}).astype(object)


def _min_side(pairs: pd.DataFrame) -> pd.Series:
    return pairs[["width", "height"]].min(axis=1)


def _aspect(pairs: pd.DataFrame) -> pd.Series:
    return pairs[["width", "height"]].max(axis=1) / _min_side(pairs)


def _characters(pairs: pd.DataFrame) -> pd.Series:
    return pairs["caption"].str.len()


def _words(pairs: pd.DataFrame) -> pd.Series:
    return pairs["caption"].str.count(r"\S+")


def _no_similarity(pairs: pd.DataFrame) -> pd.Series:
    return _mark(pairs["clip_similarity"].isna(), "no_similarity: CLIP gave no number")


def _duplicate(pairs: pd.DataFrame) -> pd.Series:
    keeper = duplicates.copies(pairs)
    return ("duplicate of " + keeper).where(keeper != "", "")
