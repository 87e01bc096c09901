"""The schema of ``conf/sampler``: how a picture is drawn, with the range of every value."""

from __future__ import annotations

from dataclasses import dataclass

from omegaconf import MISSING

from curate.run.schema import check

SAMPLERS = ("dpm_solver++", "unipc", "euler", "euler_ancestral", "ddim", "ddpm")
SPACINGS = ("leading", "trailing", "linspace")


@dataclass
class SamplerConfig:
    """How a picture is drawn: the solver, its steps, and classifier-free guidance.

    Attributes:
        name: a key of ``finetune.drawing.sampling.SCHEDULERS``.
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
