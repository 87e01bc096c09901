"""The settings of what is measured: the loss grid, the sampler and the pictures, with the range of every value."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from omegaconf import MISSING

from curate.clip.config import ClipConfig
from curate.run.schema import check
from finetune.config import RunConfig

SAMPLERS = ("dpm_solver++", "ddim", "ddpm")
SPACINGS = ("leading", "trailing", "linspace")


@dataclass
class GridConfig:
    """The fixed grid of losses.

    Attributes:
        items: held-out pictures, and as many training pictures.
        bins: noise levels. draws: noises for each of them.
        seed: of the noise. batch_size: losses measured at once.
    """

    items: int = 128
    bins: int = 10
    draws: int = 2
    seed: int = 0
    batch_size: int = 64

    def __post_init__(self) -> None:
        for name in ("items", "bins", "draws", "batch_size"):
            check(getattr(self, name) > 0, f"grid.{name}", getattr(self, name), "> 0")


@dataclass
class SamplerConfig:
    """How a picture is drawn: the solver, its steps, and classifier-free guidance.

    Attributes:
        name: a key of ``evaluate.sampling.SCHEDULERS``.
        timestep_spacing: which noise levels the steps visit; ``trailing`` starts from pure noise
            (Lin et al. 2024, table 2).
    """

    name: str = MISSING
    steps: int = 20
    guidance_scale: float = 5.0
    timestep_spacing: str = "trailing"

    def __post_init__(self) -> None:
        check(self.name in SAMPLERS, "sampler.name", self.name, ", ".join(SAMPLERS))
        spacing = self.timestep_spacing
        check(spacing in SPACINGS, "sampler.timestep_spacing", spacing, ", ".join(SPACINGS))
        check(0 < self.steps <= 1000, "sampler.steps", self.steps, "1 ... 1000")
        check(self.guidance_scale >= 0, "sampler.guidance_scale", self.guidance_scale, ">= 0")


@dataclass
class SamplesConfig:
    """Which pictures are drawn.

    Attributes:
        rows: held-out captions in the report's comparison.
        clip_captions: held-out captions that prompt following is measured on; 0 leaves it out.
        seed: of the noise. batch_size: pictures drawn at once.
    """

    rows: int = 12
    clip_captions: int = 64
    seed: int = 0
    batch_size: int = 16

    def __post_init__(self) -> None:
        for name, least in (("rows", 1), ("clip_captions", 0), ("batch_size", 1)):
            value = getattr(self, name)
            check(value >= least, f"samples.{name}", value, f">= {least}")


@dataclass
class MeasureConfig:
    """What an evaluation measures, and with what; everything but the gate.

    Attributes:
        device: auto (the GPU if there is one), cpu, cuda, cuda:N, mps or xpu.
    """

    run: RunConfig = field(default_factory=RunConfig)
    clip: ClipConfig = MISSING
    sampler: SamplerConfig = MISSING
    grid: GridConfig = field(default_factory=GridConfig)
    samples: SamplesConfig = field(default_factory=SamplesConfig)
    device: str = "auto"

    def __post_init__(self) -> None:
        known = re.fullmatch(r"auto|cpu|mps|xpu|cuda(:\d+)?", self.device)
        check(known is not None, "device", self.device, "auto, cpu, cuda, cuda:N, mps, xpu")
