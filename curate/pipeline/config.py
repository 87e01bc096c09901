"""The typed schema of ``conf/curate.yaml`` and its groups, with the range of every value."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from omegaconf import MISSING

from curate.filters.config import LARGEST_DISTANCE, FiltersConfig
from curate.measures.registry import MEASURES
from curate.readers.config import DatasetConfig
from curate.run.cli import check, register

LARGEST_SHARE = 0.5  # of the data, on a held-out side
SMALLEST_JUDGED = 32  # held-out images that python -m evaluate gives a verdict on


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
class ClipConfig:
    """Which CLIP scores the pairs.

    Attributes:
        name: of a model of open_clip, or ``local-dir:FOLDER``.
        pretrained: open_clip's tag of its weights.
        precision: fp32, bf16, fp16, or auto (bf16 on CUDA, else fp32).
        device: auto, cpu, mps, cuda or cuda:N.
        batch_size: null for one that suits the device; halved where memory does not suffice.
    """

    name: str = MISSING
    pretrained: str | None = None
    precision: str = "fp32"
    device: str = "auto"
    batch_size: int | None = None

    def __post_init__(self) -> None:
        check(
            self.precision in ("auto", "fp32", "bf16", "fp16"),
            "clip.precision",
            self.precision,
            "auto (bf16 on CUDA, else fp32), fp32, bf16, fp16",
        )
        known = re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", self.device)
        check(known is not None, "clip.device", self.device, "auto, cpu, mps, cuda, cuda:N")
        size = self.batch_size
        check(size is None or size > 0, "clip.batch_size", size, "null (by device), or > 0")


@dataclass
class HeadConfig:
    """A small model on CLIP's image embeddings, from a file of the user's; its column is ``head_<name>``.

    Attributes:
        path: a safetensors file, or a ``.pt``/``.pth`` of tensors only.
        sha256: what the file has to hash to; null trusts it.
        kind: linear (LAION's aesthetic V1 and V2) or nsfw (LAION's detector); see ``heads.py``.
    """

    path: str
    sha256: str | None = None
    kind: str = "linear"

    @classmethod
    def of(cls, name: str, values: Any) -> HeadConfig:
        """From what was typed: Hydra cannot add a typed entry to a mapping from the command line."""
        known = [field.name for field in fields(cls)]
        sound = isinstance(values, Mapping) and "path" in values and set(values) <= set(known)
        check(sound, f"heads.{name}", values, f"{', '.join(known)}, of which path is needed")
        return cls(**values)

    def __post_init__(self) -> None:
        check(self.kind in ("linear", "nsfw"), "heads.NAME.kind", self.kind, "linear, nsfw")
        digest = self.sha256
        sound = digest is None or re.fullmatch("[0-9a-f]{64}", digest) is not None
        check(sound, "heads.NAME.sha256", digest, "null, or 64 hex digits in lower case")


@dataclass
class SplitConfig:
    """Shares held out of training, by hash of the duplicate group.

    Attributes:
        val: share of the images that the verdict is made on.
        test: share of the images that nothing looks at before the end.
        minimum: images per held-out side, as far as a tenth of the data allows.
        seed: of the hash.
        hamming_distance: bits of 64 in which the perceptual hashes of pictures on different sides,
            as they are or mirrored, differ at least by one more; null tells only equal pixels. At 4
            every recompressed or resized photograph is found, and unlike ones differ in 18; symmetric
            drawings look more alike to it, see ``images.phashes``.
    """

    val: float = 0.05
    test: float = 0.05
    minimum: int = 128
    seed: int = 0
    hamming_distance: int | None = 4

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
        bits = self.hamming_distance
        check(
            bits is None or 0 <= bits <= LARGEST_DISTANCE,
            "split.hamming_distance",
            bits,
            f"null or 0 ... {LARGEST_DISTANCE}",
        )


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
    draft: bool = False  # decode JPEGs at a fraction of their size: faster, other scores
    measures: list[str] = field(default_factory=list)  # beyond those that the filters need

    def __post_init__(self) -> None:
        key = "annotate.images_per_part"
        check(self.images_per_part > 0, key, self.images_per_part, "> 0")
        check(self.workers > 0, "annotate.workers", self.workers, "> 0")
        rate = self.max_reject_rate
        check(0 <= rate <= 1, "annotate.max_reject_rate", rate, "a share, 0 ... 1")
        for name in self.measures:
            check(name in MEASURES, "annotate.measures", name, ", ".join(MEASURES))


@dataclass
class CurateConfig:
    """All of ``python -m curate``."""

    run: RunConfig = field(default_factory=RunConfig)
    dataset: DatasetConfig = MISSING
    clip: ClipConfig = MISSING
    heads: dict[str, Any] = field(default_factory=dict)  # HeadConfig, or its values, by name
    filters: FiltersConfig = field(default_factory=FiltersConfig)
    split: SplitConfig = field(default_factory=SplitConfig)
    shards: ShardsConfig = field(default_factory=ShardsConfig)
    annotate: AnnotateConfig = field(default_factory=AnnotateConfig)
    dry_run: int | None = None  # images to try the run on; what it would come to is printed

    def __post_init__(self) -> None:
        self.heads = {
            name: values if isinstance(values, HeadConfig) else HeadConfig.of(name, values)
            for name, values in self.heads.items()
            if values is not None
        }
        check(self.dry_run is None or self.dry_run > 0, "dry_run", self.dry_run, "null or > 0")


register(CurateConfig, "curate")
register(ClipConfig, "clip", "clip")
