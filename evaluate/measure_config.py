"""The settings of what is measured: the loss grid, the sampler and the pictures, with the range of every value."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from omegaconf import MISSING

from curate.clip.config import ClipConfig
from curate.decide.config import SMALLEST_JUDGED
from curate.run.config import check_name
from curate.run.schema import PATH, UserError, check
from finetune.config import RunConfig
from finetune.config.optim import PRECISIONS
from finetune.drawing.config import SamplerConfig

FEATURES = ("clip", "vae", "timm", "off")


@dataclass
class GridConfig:
    """The fixed grid of losses.

    Attributes:
        items: held-out pictures, and as many training pictures.
        bins: noise levels. draws: noises for each of them.
        seed: of the noise. batch_size: losses measured at once; null is 64, and fewer of pictures above
            128 px, see ``finetune.at_once``.
    """

    items: int = 128
    bins: int = 10
    draws: int = 2
    seed: int = 0
    batch_size: int | None = None

    def __post_init__(self) -> None:
        for name in ("items", "bins", "draws"):
            check(getattr(self, name) > 0, f"grid.{name}", getattr(self, name), "> 0")
        size = self.batch_size
        check(size is None or size > 0, "grid.batch_size", size, "null or > 0")


@dataclass
class SamplesConfig:
    """Which pictures are drawn.

    Attributes:
        rows: held-out captions in the report's comparison.
        clip_captions: held-out captions that prompt following is measured on; 0 leaves it out.
        seed: of the noise. batch_size: pictures drawn at once; null is 16, and fewer above 181 px.
    """

    rows: int = 12
    clip_captions: int = 64
    seed: int = 0
    batch_size: int | None = None

    def __post_init__(self) -> None:
        for name, least in (("rows", 1), ("clip_captions", 0)):
            value = getattr(self, name)
            check(value >= least, f"samples.{name}", value, f">= {least}")
        size = self.batch_size
        check(size is None or size > 0, "samples.batch_size", size, "null or > 0")


@dataclass
class CopyingConfig:
    """How copying of training pictures is measured.

    Attributes:
        pictures: training captions, and as many held-out ones, that pictures are drawn for; 0 leaves it out.
    """

    pictures: int = 48

    def __post_init__(self) -> None:
        accepted = f"0, or {SMALLEST_JUDGED} or more"
        known = self.pictures == 0 or self.pictures >= SMALLEST_JUDGED
        check(known, "copying.pictures", self.pictures, accepted)


@dataclass
class ReconsiderConfig:
    """Which training pairs are looked at for ``reconsider.csv``.

    Attributes:
        pictures: training pictures measured, those least similar to their captions; 0 leaves it out.
    """

    pictures: int = 384

    def __post_init__(self) -> None:
        check(self.pictures >= 0, "reconsider.pictures", self.pictures, ">= 0")


@dataclass
class RetentionConfig:
    """What became of that which the base could do, see ``evaluate.measure.retention``.

    Attributes:
        items: neutral prompts for which the base draws a picture each; 0 leaves retention out.
        prompts: file of other prompts than the built-in ones, one a line; all where it has fewer than
            ``items``.
        run: name of a run below ``run.root`` that was curated from the base's own data; as many of its
            pictures are measured, too.
    """

    items: int = 48
    prompts: str | None = field(default=None, metadata=PATH)
    run: str | None = field(default=None, metadata=PATH)

    def __post_init__(self) -> None:
        check(self.items >= 0, "retention.items", self.items, ">= 0")
        if self.run is not None:
            check_name("retention.run", self.run)
        for name in ("prompts", "run"):
            value = getattr(self, name)
            if value is not None and not self.items:
                raise UserError(
                    f"retention.{name}={value} has no effect beside retention.items=0; remove one of the two"
                )


@dataclass
class DistributionConfig:
    """How the drawn pictures are compared with the real ones as a whole, and how varied they are.

    Attributes:
        features: what pictures are compared by: ``clip`` (the one of prompt following), ``vae`` (latents of
            the model that is judged), ``timm`` (a network of your own weights), or ``off``.
        timm_model: name of timm's architecture. timm_weights: a safetensors file of its weights.
        captions: how many are drawn several times, to see how varied the pictures of one caption are; 0
            leaves it out. seeds: pictures of each of them.
        precision_recall: whether they are measured; they need many pictures.
    """

    features: str = "clip"
    timm_model: str | None = None
    timm_weights: str | None = field(default=None, metadata=PATH)
    captions: int = 24
    seeds: int = 2
    precision_recall: bool = False

    def __post_init__(self) -> None:
        check(
            self.features in FEATURES, "distribution.features", self.features, ", ".join(FEATURES)
        )
        for name in ("timm_model", "timm_weights"):
            value, needed = getattr(self, name), self.features == "timm"
            accepted = "given where distribution.features=timm, and only there"
            check((value is not None) == needed, f"distribution.{name}", value, accepted)
        check(self.captions >= 0, "distribution.captions", self.captions, ">= 0")
        check(self.seeds >= 2, "distribution.seeds", self.seeds, ">= 2")


@dataclass
class MeasureConfig:
    """What an evaluation measures, and with what; everything but the gate.

    Attributes:
        device: auto (the GPU if there is one), cpu, cuda, cuda:N, mps or xpu.
        precision: in which the U-Net computes: ``no`` is fp32, ``bf16`` and ``fp16`` need less memory.
    """

    run: RunConfig = field(default_factory=RunConfig)
    clip: ClipConfig = MISSING
    sampler: SamplerConfig = MISSING
    grid: GridConfig = field(default_factory=GridConfig)
    samples: SamplesConfig = field(default_factory=SamplesConfig)
    copying: CopyingConfig = field(default_factory=CopyingConfig)
    reconsider: ReconsiderConfig = field(default_factory=ReconsiderConfig)
    retention: RetentionConfig = field(default_factory=RetentionConfig)
    distribution: DistributionConfig = field(default_factory=DistributionConfig)
    device: str = "auto"
    precision: str = "no"

    def __post_init__(self) -> None:
        known = re.fullmatch(r"auto|cpu|mps|xpu|cuda(:\d+)?", self.device)
        check(known is not None, "device", self.device, "auto, cpu, cuda, cuda:N, mps, xpu")
        check(self.precision in PRECISIONS, "precision", self.precision, ", ".join(PRECISIONS))
