"""The settings ``split.*``, what to do about siblings across it, and the fewest held-out images for a verdict."""

from __future__ import annotations

from dataclasses import dataclass, field

from curate.filters.duplicates import LARGEST_DISTANCE
from curate.run.schema import PATH, check

LARGEST_SHARE = 0.5  # of the data, on a held-out side

HELD_OUT = ("val", "test")  # sides of the split that are not trained on
SIDES = ("train", *HELD_OUT)
SMALLEST_JUDGED = 32
"""Duplicate groups of held-out images that python -m evaluate gives a verdict on."""

NOTICEABLE = 0.05
"""Share of held-out pictures with a sibling in train from which a held-out loss shows too little overfitting."""

REMEDY = (
    "split.siblings=true, the default, keeps most of such pictures together; for others, give both the same value "
    "in a column named group of your data; to drop near copies, type filters.duplicates.hamming_distance=4 or "
    "filters.duplicates.cosine=0.96"
)


@dataclass
class SplitConfig:
    """Shares held out of training, by hash of the duplicate group.

    Attributes:
        val: share of the images that the verdict is made on.
        test: share of the images that are used only once, for the final check.
        minimum: images per held-out side, as far as a tenth of the data allows; and groups, of which
            ``SMALLEST_JUDGED`` are enough.
        seed: of the hash.
        hamming_distance: pictures whose perceptual hashes differ in this many of 64 bits or fewer, one
            of them mirrored or not, are on one side if their shapes and colours are not far apart, see
            ``decide.evidence``; null groups only equal pixels. 4 finds every recompressed or resized
            photograph, and different photographs differ in about 18 bits.
        siblings: pictures with near captions and near CLIP embeddings, such as crops and the same drawing
            in another colour, are on one side, see ``decide.siblings``. They are no copies: all are kept.
        held_out: a table of pictures that earlier curations held out, see ``decide.held_out``; they stay on
            their side, with all that joined their groups, whatever the hash says.
    """

    val: float = 0.05
    test: float = 0.05
    minimum: int = 128
    seed: int = 0
    hamming_distance: int | None = 4
    siblings: bool = True
    held_out: str | None = field(default=None, metadata=PATH)

    def __post_init__(self) -> None:
        for side in HELD_OUT:
            value = getattr(self, side)
            check(
                0 <= value < LARGEST_SHARE,
                f"split.{side}",
                value,
                "a share, 0 or more and below 0.5",
            )
        check(self.minimum >= 0, "split.minimum", self.minimum, ">= 0")
        bits = self.hamming_distance
        check(
            bits is None or 0 <= bits <= LARGEST_DISTANCE,
            "split.hamming_distance",
            bits,
            f"null or 0 ... {LARGEST_DISTANCE}",
        )
