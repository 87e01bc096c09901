"""The rules on the data set as pandas applies them to one frame of all pairs: against which SQL is tested."""

from decimal import Decimal

import numpy as np
import pandas as pd

from curate.filters.config import FiltersConfig
from curate.filters.rule import Rule, rounded


def too_often(pairs: pd.DataFrame, most: int) -> pd.Series:
    return pairs.groupby("caption")["caption"].transform("size") > most


def not_most_similar(pairs: pd.DataFrame, fraction: float) -> pd.Series:
    keep = max(1, int(len(pairs) * Decimal(str(fraction))))
    order = pairs.assign(less=-pairs["clip_similarity"]).sort_values(
        ["less", "key", "caption_index"]
    )
    return ~pairs.index.isin(order.index[:keep])


def fewer(pairs: pd.DataFrame, count: int) -> pd.Series:
    return pairs.groupby("key")["key"].transform("size") < count


def not_best(pairs: pd.DataFrame) -> pd.Series:
    order = pairs.sort_values(["clip_similarity", "caption_index"], ascending=[False, True])
    return order.duplicated("key").reindex(pairs.index)


def judged(
    pairs: pd.DataFrame, rules: list[Rule], config: FiltersConfig, cut: float | None
) -> tuple[list[int], list[tuple[int, int]]]:
    """The code of each pair, and for each rule its code and how many pairs it dropped."""
    codes, left, steps = pd.Series(0, pairs.index), pairs[pairs["error"] == ""], []
    codes[pairs["error"] != ""] = -1
    every = [rule.drops for rule in rules]
    if (most := config.caption.max_occurrences) is not None:
        every.append(lambda rows: too_often(rows, most))
    every.append(lambda rows: rows["clip_similarity"].isna())
    if cut is not None:
        every.append(lambda rows: rows["clip_similarity"] < rounded(cut))
    elif (fraction := config.clip_similarity.fraction) is not None:
        every.append(lambda rows: not_most_similar(rows, fraction))
    if (count := config.captions.at_least) > 1:
        every.append(lambda rows: fewer(rows, count))
    if config.captions.keep == "best":
        every.append(not_best)
    for code, drops in enumerate(every, start=1):
        dropped = np.asarray(drops(left), bool) if len(left) else np.zeros(0, bool)
        codes[left.index[dropped]] = code
        steps.append((code, int(dropped.sum())))
        left = left[~dropped]
    return codes.tolist(), steps
