"""Which images count as duplicates; ``decide.duplicates`` finds them, because it has the embeddings."""

from __future__ import annotations

from dataclasses import dataclass

from curate.filters.rule import Reason
from curate.run.schema import check

DUPLICATE = Reason("duplicate", "duplicate")
"""The last rule: a better copy of the picture is kept."""

LARGEST_DISTANCE = 16  # bits; two unrelated hashes of 64 bits differ in 32 on average


@dataclass
class DuplicatesConfig:
    """Which images count as duplicates; of each group the one with the most similar caption stays.

    Attributes:
        exact: equal pixels.
        hamming_distance: perceptual hashes that differ in at most this many of 64 bits, in pictures whose
            shapes and colours agree, see ``decide.evidence``; 4 suits photographs. Plain pictures are
            copies only where they are equal.
        cosine: CLIP embeddings with at least this cosine; the right value depends on the CLIP.
    """

    exact: bool = True
    hamming_distance: int | None = None
    cosine: float | None = None

    def __post_init__(self) -> None:
        key, bits, cosine = "filters.duplicates", self.hamming_distance, self.cosine
        valid = bits is None or 0 <= bits <= LARGEST_DISTANCE
        check(valid, f"{key}.hamming_distance", bits, f"null or 0 ... {LARGEST_DISTANCE}")
        valid = cosine is None or 0 < cosine <= 1
        check(valid, f"{key}.cosine", cosine, "null or above 0, up to 1")
