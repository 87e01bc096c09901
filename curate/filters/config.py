"""The typed schema of the group ``filters/``, with the range of every value."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from curate.run.schema import PATH, UserError, check, entries, register

UNDETERMINED = "und"  # ISO 639's code for a language that is not known
LARGEST_DISTANCE = 16  # bits; half of what two unrelated hashes of 64 differ in


@dataclass
class ClipSimilarityConfig:
    """The cut on CLIP similarity. ``minimum`` or ``fraction``, where given, replace the calibration.

    Attributes:
        minimum: keep similarity >= minimum. 0.28 and 0.30 are OpenAI's ViT-B/32's and no other's.
        fraction: keep this share of the pairs that reach the rule, the most similar ones.
        false_keep_rate: let this share of shuffled captions pass; works for any model.
        made_for: the CLIP that ``minimum`` belongs to, ``clip.name`` and ``clip.pretrained`` with a
            space between, such as "ViT-B-32-quickgelu openai"; null where it belongs to none.
    """

    minimum: float | None = None
    fraction: float | None = None
    false_keep_rate: float | None = None
    made_for: str | None = field(default=None, metadata=PATH)

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
        _exclusive(self, key, "minimum", "fraction")


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
        pixels = self.max_pixels
        check(pixels is None or pixels > 0, "filters.image.max_pixels", pixels, "null or > 0")
        _check_range("filters.image", "bytes", self.min_bytes, self.max_bytes)


@dataclass
class CaptionFilterConfig:
    """Bounds on the caption; null switches a bound off. The measures: ``filters.caption``.

    Attributes:
        max_tokens: of the CLIP's tokenizer, both ends included, before it cuts.
        min_alphanumeric: share of characters that are letters or digits.
        max_character_repetition: share of repeated n-grams of ``repetition_characters`` characters.
        max_word_repetition: share of repeated n-grams of ``repetition_words`` words.
        blocklist: words and phrases, or the path of a file with one a line; found as whole words.
        contacts: keep or drop captions with a URL, an e-mail address or a telephone number.
        max_occurrences: pairs with the same caption among those that are left.
    """

    min_characters: int | None = None
    max_characters: int | None = None
    min_words: int | None = None
    max_words: int | None = None
    max_tokens: int | None = None
    min_alphanumeric: float | None = None
    max_character_repetition: float | None = None
    repetition_characters: int = 10
    max_word_repetition: float | None = None
    repetition_words: int = 5
    blocklist: Any = field(
        default=None, metadata=PATH
    )  # list[str] | str, a union that OmegaConf does not know
    contacts: str = "keep"
    max_occurrences: int | None = None

    def __post_init__(self) -> None:
        key = "filters.caption"
        for unit in ("characters", "words"):
            low, high = getattr(self, f"min_{unit}"), getattr(self, f"max_{unit}")
            _check_range(key, unit, low, high)
        for name in ("max_tokens", "max_occurrences"):
            most = getattr(self, name)
            check(most is None or most > 0, f"{key}.{name}", most, "null or > 0")
        for name in ("min_alphanumeric", "max_character_repetition", "max_word_repetition"):
            share = getattr(self, name)
            check(share is None or 0 <= share <= 1, f"{key}.{name}", share, "null or 0 ... 1")
        for name in ("repetition_characters", "repetition_words"):
            check(
                1 <= getattr(self, name) <= 100, f"{key}.{name}", getattr(self, name), "1 ... 100"
            )
        words = self.blocklist
        sound = words is None or isinstance(words, str) or _are_strings(words)
        check(sound, f"{key}.blocklist", words, "null, a file, or a list of words (numbers quoted)")
        check(self.contacts in ("keep", "drop"), f"{key}.contacts", self.contacts, "keep, drop")


@dataclass
class LanguageFilterConfig:
    """Which languages a caption may have; with neither list any passes and none is measured.

    Attributes:
        accepted: codes that stay: ISO 639-1, or 639-3 where that has none, or "und".
        rejected: codes that go, instead.
        min_confidence: a language that was found with less counts as "und", undetermined.
    """

    accepted: list[str] | None = None
    rejected: list[str] | None = None
    min_confidence: float = 0.0

    def __post_init__(self) -> None:
        key = "filters.language"
        for name in ("accepted", "rejected"):
            codes = getattr(self, name)
            sound = codes is None or (codes and all(re.fullmatch("[a-z]{2,3}", c) for c in codes))
            check(bool(sound), f"{key}.{name}", codes, "null or a list of codes, such as [en,de]")
        _exclusive(self, key, "accepted", "rejected")
        sure = self.min_confidence
        check(0 <= sure <= 1, f"{key}.min_confidence", sure, "0 ... 1")


@dataclass
class BoundsConfig:
    """A range for a column of numbers; null leaves an end open."""

    minimum: float | None = None
    maximum: float | None = None
    keep_missing: bool = False  # whether a pair without a number stays

    @classmethod
    def of(cls, column: str, values: Any) -> BoundsConfig:
        """From what was typed: Hydra cannot add a typed entry to a mapping from the command line."""
        key, known = f"filters.columns.{column}", [field.name for field in fields(cls)]
        sound = isinstance(values, Mapping) and set(values) <= set(known)
        check(sound, key, values, f"null, or some of {', '.join(known)}")
        bounds = cls(**values)
        low, high, keep = bounds.minimum, bounds.maximum, bounds.keep_missing
        check(low is None or _is_number(low), f"{key}.minimum", low, "null or a number")
        ordered = high is None or (_is_number(high) and (low is None or low <= high))
        check(ordered, f"{key}.maximum", high, "null or a number, no less than the minimum")
        check(isinstance(keep, bool), f"{key}.keep_missing", keep, "true, false")
        return bounds


@dataclass
class DuplicatesConfig:
    """Which pictures count as the same; of each group the one with the most similar caption stays.

    Attributes:
        exact: equal pixels.
        hamming_distance: perceptual hashes that differ in this many of 64 bits or fewer; 4 for
            photographs. Drawings of one style need less: recoloured ones have the same hash, and
            symmetric ones are told apart by half of the bits.
        cosine: CLIP embeddings of at least this cosine; what that means depends on the CLIP.
    """

    exact: bool = True
    hamming_distance: int | None = None
    cosine: float | None = None

    def __post_init__(self) -> None:
        bits, cosine = self.hamming_distance, self.cosine
        key, accepted = "filters.duplicates", f"null or 0 ... {LARGEST_DISTANCE}"
        sound = bits is None or 0 <= bits <= LARGEST_DISTANCE
        check(sound, f"{key}.hamming_distance", bits, accepted)
        sound = cosine is None or 0 < cosine <= 1
        check(sound, f"{key}.cosine", cosine, "null or above 0, up to 1")


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
    """The rules, in the order in which they are applied.

    Attributes:
        columns: column of numbers => `BoundsConfig`, or its values; null for none.
    """

    image: ImageFilterConfig = field(default_factory=ImageFilterConfig)
    caption: CaptionFilterConfig = field(default_factory=CaptionFilterConfig)
    language: LanguageFilterConfig = field(default_factory=LanguageFilterConfig)
    columns: dict[str, Any] = field(default_factory=dict, metadata=entries(BoundsConfig))
    clip_similarity: ClipSimilarityConfig = field(default_factory=ClipSimilarityConfig)
    captions: CaptionsConfig = field(default_factory=CaptionsConfig)
    duplicates: DuplicatesConfig = field(default_factory=DuplicatesConfig)

    def __post_init__(self) -> None:
        self.columns = {
            name: values if isinstance(values, BoundsConfig) else BoundsConfig.of(name, values)
            for name, values in self.columns.items()
            if values is not None
        }


def _check_range(key: str, unit: str, low: int | None, high: int | None) -> None:
    check(low is None or low >= 0, f"{key}.min_{unit}", low, "null or >= 0")
    sound = high is None or high >= max(low or 0, 1)
    check(sound, f"{key}.max_{unit}", high, f"null or >= max(1, min_{unit})")


def _exclusive(config: Any, key: str, one: str, other: str) -> None:
    """At most one of two values may be given."""
    if getattr(config, one) is not None and getattr(config, other) is not None:
        raise UserError(
            f"{key}.{one}={getattr(config, one)} and {key}.{other}={getattr(config, other)} exclude "
            f"each other; type {key}.{other}=null or {key}.{one}=null"
        )


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _are_strings(values: Any) -> bool:
    return isinstance(values, Sequence) and all(isinstance(value, str) for value in values)


register(FiltersConfig, "filters", "filters")
