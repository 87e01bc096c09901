"""Rules on the CLIP similarity of image and caption."""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal

from curate.filters.checks import check_exclusive
from curate.filters.rule import Reason, Rule, below
from curate.run.schema import PATH, check, replaces

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


def unscored() -> Reason:
    """The rule on pairs without a similarity, which is always on."""
    return Reason("no_similarity", "no_similarity: CLIP gave no number")


def rules(cut: float | None) -> list[Rule]:
    """Drop pairs below the cut.

    Args:
        cut: the lowest similarity to keep, from ``minimum`` or the calibration; None for no cut.
    """
    return [] if cut is None else [below(NAME, lambda pairs: pairs["clip_similarity"], cut)]


def most_similar(fraction: float) -> Reason:
    """The rule that keeps exactly ``most_of`` pairs, of ties the first by key and caption."""
    return Reason(NAME, f"{NAME} not among the top {fraction:g}")


def most_of(pairs: int, fraction: float) -> int:
    """How many pairs a fraction keeps: floor(n x fraction), at least one.

    The product is computed in decimal: 0.29 of 100 is 29, but 28 in binary floating point.

    >>> most_of(100, 0.29), most_of(2, 0.3)
    (29, 1)
    """
    return max(1, int(pairs * Decimal(str(fraction))))
