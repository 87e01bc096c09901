"""Rules on an image's size: its sides in pixels and its file in bytes, both known from the header."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from curate.filters.checks import check_range
from curate.filters.rule import Rule, within
from curate.run.schema import check

if TYPE_CHECKING:
    import pandas as pd


@dataclass
class ImageFilterConfig:
    """Bounds on an image; null switches a bound off.

    Attributes:
        min_side_px: of the shorter side.
        max_pixels: width times height.
        max_aspect: longer side over shorter side.
        min_bytes: of the file.
        max_bytes: of the file.
    """

    min_side_px: int | None = None
    max_pixels: int | None = None
    max_aspect: float | None = None
    min_bytes: int | None = None
    max_bytes: int | None = None

    def __post_init__(self) -> None:
        side, aspect = self.min_side_px, self.max_aspect
        check(side is None or side > 0, "filters.image.min_side_px", side, "null or > 0")
        check(aspect is None or aspect >= 1, "filters.image.max_aspect", aspect, "null or >= 1")
        pixels = self.max_pixels
        check(pixels is None or pixels > 0, "filters.image.max_pixels", pixels, "null or > 0")
        check_range("filters.image", "bytes", self.min_bytes, self.max_bytes)


def rules(config: ImageFilterConfig) -> list[Rule]:
    """The rules that the configuration switches on."""
    return [
        *within("min_side_px", min_side_px, low=config.min_side_px),
        *within("pixels", pixels, high=config.max_pixels),
        *within("aspect", aspect, high=config.max_aspect),
        *within("bytes", lambda pairs: pairs["bytes"], config.min_bytes, config.max_bytes),
    ]


def min_side_px(pairs: pd.DataFrame) -> pd.Series:
    """The shorter side."""
    return pairs[["width", "height"]].min(axis=1)


def pixels(pairs: pd.DataFrame) -> pd.Series:
    """Width times height."""
    return pairs["width"].astype("int64") * pairs["height"]


def aspect(pairs: pd.DataFrame) -> pd.Series:
    """Longer side over shorter side, at least 1."""
    sides = pairs[["width", "height"]]
    # float32 like the bounds, so that a picture of exactly the bound stays
    return (sides.max(axis=1) / sides.min(axis=1)).astype("float32")
