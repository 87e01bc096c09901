"""Rules on the picture itself, all of which its header decides."""

from __future__ import annotations

import pandas as pd

from curate.filters.config import ImageFilterConfig
from curate.filters.rule import Rule, within


def rules(config: ImageFilterConfig) -> list[Rule]:
    """Those that the configuration switches on."""
    return [
        *within("min_side_px", min_side_px, config.min_side_px, None),
        *within("pixels", pixels, None, config.max_pixels),
        *within("aspect", aspect, None, config.max_aspect),
        *within("bytes", lambda pairs: pairs["bytes"], config.min_bytes, config.max_bytes),
    ]


def min_side_px(pairs: pd.DataFrame) -> pd.Series:
    """The shorter side."""
    return pairs[["width", "height"]].min(axis=1)


def pixels(pairs: pd.DataFrame) -> pd.Series:
    """Width times height."""
    return pairs["width"].astype("int64") * pairs["height"]


def aspect(pairs: pd.DataFrame) -> pd.Series:
    """Longer side to shorter side, 1 and more."""
    sides = pairs[["width", "height"]]
    return (sides.max(axis=1) / sides.min(axis=1)).astype("float32")  # as bounds are
