"""The typed schema of ``conf/curate.yaml`` and its groups, with the range of every value."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import MISSING

from curate.command import UserError, register

LARGEST_SHARE = 0.5  # of the data, on a held-out side
SMALLEST_JUDGED = 32  # held-out images that python -m evaluate gives a verdict on


def check(condition: bool, key: str, value: Any, accepted: str) -> None:
    """Raise a ``UserError`` that names the dotted key, the value, and what is accepted."""
    if not condition:
        raise UserError(f"{key}={value} is out of range; accepted: {accepted}. Type {key}=...")


@dataclass
class RunConfig:
    """Where the run's folder is: ``<root>/<name>``, relative to the working directory."""

    root: str = "runs"
    name: str = "${dataset.name}"

    def __post_init__(self) -> None:
        sound = bool(self.name) and "/" not in self.name and not self.name.startswith(".")
        check(sound, "run.name", self.name, "one folder name; run.root=FOLDER says where it is")

    @property
    def folder(self) -> Path:
        """The run's folder."""
        return Path(self.root, self.name)


@dataclass
class DatasetConfig:
    """What all sources share."""

    name: str = MISSING
    reader: str = MISSING
    limit: int | None = None  # images at most, the first ones; for trials

    def __post_init__(self) -> None:
        check(self.limit is None or self.limit > 0, "dataset.limit", self.limit, "null or > 0")


@dataclass
class OpenmojiConfig(DatasetConfig):
    """OpenMoji's pictures, rendered, with the names that Unicode's CLDR gives them."""

    size_px: int = 64
    language: str = "en"
    mismatch: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        check(16 <= self.size_px <= 1024, "dataset.size_px", self.size_px, "16 ... 1024")
        check(0 <= self.mismatch <= 1, "dataset.mismatch", self.mismatch, "a share, 0 ... 1")


@dataclass
class CocoConfig(DatasetConfig):
    """COCO's own layout: ``annotations/captions_*.json`` beside the image folders they name."""

    root: str = MISSING
    splits: list[str] | None = None  # such as [train2017]; null takes every caption file


@dataclass
class FolderConfig(DatasetConfig):
    """Images with caption files beside them, or with a metadata table as Hugging Face has it."""

    root: str = MISSING


@dataclass
class ClipConfig:
    """Which CLIP scores the pairs."""

    name: str = MISSING
    pretrained: str | None = None
    precision: str = "fp32"
    device: str = "auto"
    batch_size: int = 64

    def __post_init__(self) -> None:
        check(
            self.precision in ("auto", "fp32", "bf16"),
            "clip.precision",
            self.precision,
            "auto (bf16 on CUDA, else fp32), fp32, bf16",
        )
        check(self.batch_size > 0, "clip.batch_size", self.batch_size, "> 0")


@dataclass
class ClipSimilarityConfig:
    """The cut on CLIP similarity. ``minimum`` or ``fraction``, where given, replace the calibration.

    Attributes:
        minimum: keep similarity >= minimum. 0.28 and 0.30 are OpenAI's ViT-B/32's and no other's.
        fraction: keep this share of the pairs that reach the rule, the most similar ones.
        false_keep_rate: let this share of shuffled captions pass; works for any model.
    """

    minimum: float | None = None
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
    max_aspect: float | None = None

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
class FiltersConfig:
    """The rules, in the order in which they are applied: image, caption, similarity, duplicates."""

    image: ImageFilterConfig = field(default_factory=ImageFilterConfig)
    caption: CaptionFilterConfig = field(default_factory=CaptionFilterConfig)
    clip_similarity: ClipSimilarityConfig = field(default_factory=ClipSimilarityConfig)
    exact_duplicates: bool = True


@dataclass
class SplitConfig:
    """Shares held out of training, by hash of the duplicate group."""

    val: float = 0.05
    test: float = 0.05
    minimum: int = 128  # images per held-out side, as far as a tenth of the data allows
    seed: int = 0

    def __post_init__(self) -> None:
        for side in ("val", "test"):
            value = getattr(self, side)
            check(
                0 <= value < LARGEST_SHARE,
                f"split.{side}",
                value,
                "a share, 0 or more and below 0.5",
            )
        check(self.minimum >= 0, "split.minimum", self.minimum, ">= 0")


@dataclass
class ShardsConfig:
    """How samples are packed."""

    max_samples: int = 1000
    image_format: str = "auto"
    jpeg_quality: int = 95

    def __post_init__(self) -> None:
        check(self.max_samples > 0, "shards.max_samples", self.max_samples, "> 0")
        check(
            self.image_format in ("auto", "jpg", "png"),
            "shards.image_format",
            self.image_format,
            "auto (png if all sources are, else jpg), jpg, png",
        )
        check(1 <= self.jpeg_quality <= 100, "shards.jpeg_quality", self.jpeg_quality, "1 ... 100")


@dataclass
class AnnotateConfig:
    """How the measuring is cut into resumable parts."""

    images_per_part: int = 512
    workers: int = 2  # threads that read and decode
    max_reject_rate: float = 0.5  # of a full part; more unreadable images stop the run

    def __post_init__(self) -> None:
        key = "annotate.images_per_part"
        check(self.images_per_part > 0, key, self.images_per_part, "> 0")
        check(self.workers > 0, "annotate.workers", self.workers, "> 0")
        rate = self.max_reject_rate
        check(0 <= rate <= 1, "annotate.max_reject_rate", rate, "a share, 0 ... 1")


@dataclass
class CurateConfig:
    """All of ``python -m curate``."""

    run: RunConfig = field(default_factory=RunConfig)
    dataset: DatasetConfig = MISSING
    clip: ClipConfig = MISSING
    filters: FiltersConfig = field(default_factory=FiltersConfig)
    split: SplitConfig = field(default_factory=SplitConfig)
    shards: ShardsConfig = field(default_factory=ShardsConfig)
    annotate: AnnotateConfig = field(default_factory=AnnotateConfig)


register(CurateConfig, "curate")
register(OpenmojiConfig, "openmoji", "dataset")
register(CocoConfig, "coco", "dataset")
register(FolderConfig, "folder", "dataset")
register(ClipConfig, "clip", "clip")
register(FiltersConfig, "filters", "filters")
