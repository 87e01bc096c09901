"""Rules on the CLIP similarity of image and caption."""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING

from curate.filters.checks import check_exclusive
from curate.filters.rule import Rule, below
from curate.run.schema import PATH, check, replaces

if TYPE_CHECKING:
    import pandas as pd

NAME = "clip_similarity"


@dataclass
class ClipSimilarityConfig:
    """The cut on CLIP similarity; ``minimum`` or ``fraction``, if given, replaces the calibration.

    Of a preset's cut and another one that is typed, the typed one counts.

    Attributes:
        minimum: keep similarity >= minimum. 0.28 and 0.30 belong to OpenAI's ViT-B/32 only.
        fraction: keep this share of the pairs that earlier rules kept, the most similar ones.
        false_keep_rate: calibrate the cut so that it keeps this share of shuffled captions; works
            for any model.
        made_for: the CLIP that ``minimum`` belongs to: ``clip.name`` and ``clip.pretrained`` with a
            space between, such as "ViT-B-32-quickgelu openai"; null if it belongs to none.
    """

    minimum: float | None = field(default=None, metadata=replaces("fraction"))
    fraction: float | None = field(default=None, metadata=replaces("minimum"))
    false_keep_rate: float | None = field(default=None, metadata=replaces("minimum", "fraction"))
    made_for: str | None = field(default=None, metadata=PATH)

    def __post_init__(self) -> None:
        key, least = "filters.clip_similarity", self.minimum
        for name in ("fraction", "false_keep_rate"):
            share = getattr(self, name)
            valid = share is None or 0 < share <= 1
            check(valid, f"{key}.{name}", share, "null or a share above 0, up to 1")
        valid = least is None or -1 <= least <= 1
        check(valid, f"{key}.minimum", least, "null or a cosine, -1 ... 1")
        check_exclusive(self, key, "minimum", "fraction")


def rules(config: ClipSimilarityConfig, cut: float | None) -> list[Rule]:
    """Drop pairs without a similarity, then those below the cut or outside the fraction.

    Args:
        config: ``fraction`` applies if there is no cut.
        cut: the lowest similarity to keep, from ``minimum`` or the calibration; None for no cut.
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
    """Keep exactly floor(n x fraction) pairs, at least one; of ties the first by key.

    The product is computed in decimal: 0.29 of 100 is 29, but 28 in binary floating point.
    """

    def drops(pairs: pd.DataFrame) -> pd.Series:
        import numpy as np
        import pandas as pd

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
