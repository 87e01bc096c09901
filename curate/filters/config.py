"""The typed schema of the group ``filters/``, with the range of every value."""

from __future__ import annotations

from dataclasses import dataclass, field

from curate.command import UserError, check, register


@dataclass
class ClipSimilarityConfig:
    """The cut on CLIP similarity. ``minimum`` or ``fraction``, where given, replace the calibration.

    Attributes:
        minimum: keep similarity >= minimum. 0.28 and 0.30 are OpenAI's ViT-B/32's and no other's.
        made_for: the CLIP that ``minimum`` belongs to, ``clip.name`` and ``clip.pretrained`` with a
            space between, such as "ViT-B-32-quickgelu openai"; null where it belongs to none.
        fraction: keep this share of the pairs that reach the rule, the most similar ones.
        false_keep_rate: let this share of shuffled captions pass; works for any model.
    """

    minimum: float | None = None
    made_for: str | None = None
    fraction: float | None = None
    false_keep_rate: float | None = None

    def __post_init__(self) -> None:
        key = "filters.clip_similarity"
        for name in ("fraction", "false_keep_rate"):
            value = getattr(self, name)
            check(
                value is None or 0 < value <= 1,
                f"{key}.{name}",
                value,
                "null or a share above 0, up to 1",
            )
        check(
            self.minimum is None or -1 <= self.minimum <= 1,
            f"{key}.minimum",
            self.minimum,
            "null or a cosine, -1 ... 1",
        )
        if self.minimum is not None and self.fraction is not None:
            raise UserError(
                f"{key}.minimum={self.minimum} and {key}.fraction={self.fraction} exclude each "
                f"other; type {key}.fraction=null or {key}.minimum=null"
            )


@dataclass
class ImageFilterConfig:
    """Bounds on the picture itself; null switches a bound off."""

    min_side_px: int | None = None
    max_pixels: int | None = None
    max_aspect: float | None = None
    min_bytes: int | None = None
    max_bytes: int | None = None

    def __post_init__(self) -> None:
        side, aspect = self.min_side_px, self.max_aspect
        check(side is None or side > 0, "filters.image.min_side_px", side, "null or > 0")
        check(aspect is None or aspect >= 1, "filters.image.max_aspect", aspect, "null or >= 1")


@dataclass
class CaptionFilterConfig:
    """Bounds on the caption; null switches a bound off."""

    min_characters: int | None = None
    max_characters: int | None = None
    min_words: int | None = None
    max_words: int | None = None
    max_tokens: int | None = None  # as CLIP's tokenizer counts, both ends included

    def __post_init__(self) -> None:
        for unit in ("characters", "words"):
            low, high = getattr(self, f"min_{unit}"), getattr(self, f"max_{unit}")
            check(low is None or low >= 0, f"filters.caption.min_{unit}", low, "null or >= 0")
            check(
                high is None or high >= max(low or 0, 1),
                f"filters.caption.max_{unit}",
                high,
                f"null or >= max(1, min_{unit})",
            )


@dataclass
class LanguageFilterConfig:
    """Which languages a caption may have; null lets any pass and measures none."""

    accepted: list[str] | None = None  # ISO 639-1 codes, such as [en]


@dataclass
class BoundsConfig:
    """A range for a column of numbers; null leaves an end open."""

    minimum: float | None = None
    maximum: float | None = None
    keep_missing: bool = False  # whether a pair without a number stays


@dataclass
class DuplicatesConfig:
    """Which pictures count as the same; of each group the one with the most similar caption stays.

    Attributes:
        exact: equal pixels.
        hamming_distance: perceptual hashes that differ in this many of 64 bits or fewer.
        cosine: CLIP embeddings of at least this cosine.
    """

    exact: bool = True
    hamming_distance: int | None = None
    cosine: float | None = None

    def __post_init__(self) -> None:
        bits, cosine = self.hamming_distance, self.cosine
        key = "filters.duplicates"
        check(bits is None or 0 <= bits <= 16, f"{key}.hamming_distance", bits, "null or 0 ... 16")
        check(
            cosine is None or 0 < cosine <= 1, f"{key}.cosine", cosine, "null or above 0, up to 1"
        )


@dataclass
class CaptionsConfig:
    """What becomes of an image with several captions.

    Attributes:
        keep: all that pass the rules, or the best (most similar) of them.
        at_least: captions that have to pass for the image to stay.
    """

    keep: str = "all"
    at_least: int = 1

    def __post_init__(self) -> None:
        check(self.keep in ("all", "best"), "filters.captions.keep", self.keep, "all, best")
        check(self.at_least >= 1, "filters.captions.at_least", self.at_least, ">= 1")


@dataclass
class FiltersConfig:
    """The rules, in the order in which they are applied."""

    image: ImageFilterConfig = field(default_factory=ImageFilterConfig)
    caption: CaptionFilterConfig = field(default_factory=CaptionFilterConfig)
    language: LanguageFilterConfig = field(default_factory=LanguageFilterConfig)
    columns: dict[str, BoundsConfig] = field(default_factory=dict)
    clip_similarity: ClipSimilarityConfig = field(default_factory=ClipSimilarityConfig)
    captions: CaptionsConfig = field(default_factory=CaptionsConfig)
    duplicates: DuplicatesConfig = field(default_factory=DuplicatesConfig)


register(FiltersConfig, "filters", "filters")
