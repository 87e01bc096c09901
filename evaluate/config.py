"""The typed schema of ``conf/evaluate.yaml`` and its groups, with the range of every value."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field

from omegaconf import MISSING

from curate.clip.config import ClipConfig
from curate.run.cli import UserError, check, register
from evaluate.glossary import glossary
from evaluate.verdict import Word
from finetune.config import RunConfig

SAMPLERS = ("dpm_solver++", "ddim", "ddpm")
SPACINGS = ("leading", "trailing", "linspace")
OPERATORS = ("<", "<=", ">", ">=", "in", "not_in")
BOUNDS = ("value", "ci_low", "ci_high")
SEVERITIES = ("fail", "warn")
UNDECIDED = ("exit_3", "pass", "fail")
RENAMED = {"probe_change": "train_probe_change"}  # metrics by their names in older configurations


def _one_of(key: str, value: str, accepted: tuple[str, ...]) -> None:
    check(value in accepted, key, value, ", ".join(accepted))


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
        _one_of("sampler.name", self.name, SAMPLERS)
        _one_of("sampler.timestep_spacing", self.timestep_spacing, SPACINGS)
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
class GateRule:
    """What one metric of ``report.json`` has to satisfy.

    Attributes:
        metric: its name there, or ``verdict``.
        op: how it is compared with ``threshold``; for the verdict, whether it is one of ``values``.
        use: the value, or the bound of its interval, that has to satisfy the rule. A rule that only the
            interval's other bound satisfies is undecided.
        severity: a broken rule of severity ``warn`` is shown and does not fail the gate.
        required: whether the gate is undecided if the metric was not measured.
    """

    metric: str = MISSING
    op: str = MISSING
    threshold: float | None = None
    values: list[str] = field(default_factory=list)
    use: str = "value"
    severity: str = "fail"
    required: bool = True

    def __post_init__(self) -> None:
        if self.metric in RENAMED:
            old, self.metric = self.metric, RENAMED[self.metric]
            key = "gate.rules.*.metric"
            print(f"note: {key}={old} is deprecated; type {key}={self.metric}", file=sys.stderr)
        _one_of("gate.rules.*.metric", self.metric, tuple(glossary()))
        key = f"gate.rules.*.(metric={self.metric})"
        _one_of(f"{key}.op", self.op, OPERATORS)
        _one_of(f"{key}.use", self.use, BOUNDS)
        _one_of(f"{key}.severity", self.severity, SEVERITIES)
        words = self.op in ("in", "not_in")
        if words != (self.metric == "verdict"):
            raise UserError(
                f"{key}: op={self.op} does not fit; the metric verdict takes in and not_in, all others "
                "take <, <=, > and >="
            )
        for value in self.values:
            _one_of(f"{key}.values", value, tuple(map(str, Word)))
        if words == (self.threshold is not None) or words != bool(self.values):
            raise UserError(
                f"{key}: op={self.op} takes {'values=[...]' if words else 'a threshold'} and nothing "
                "else; see conf/gate/default.yaml"
            )


@dataclass
class GateConfig:
    """Rules by name, and which exit code an undecided gate gives."""

    rules: dict[str, GateRule] = field(default_factory=dict)
    on_undecided: str = "exit_3"

    def __post_init__(self) -> None:
        _one_of("gate.on_undecided", self.on_undecided, UNDECIDED)


@dataclass
class EvaluateConfig:
    """All of ``python -m evaluate``."""

    run: RunConfig = field(default_factory=RunConfig)
    clip: ClipConfig = MISSING
    sampler: SamplerConfig = MISSING
    gate: GateConfig = MISSING
    grid: GridConfig = field(default_factory=GridConfig)
    samples: SamplesConfig = field(default_factory=SamplesConfig)
    resamples: int = 2000
    device: str = "auto"

    def __post_init__(self) -> None:
        check(self.resamples >= 100, "resamples", self.resamples, ">= 100")


register(EvaluateConfig, "evaluate")
register(SamplerConfig, "sampler", "sampler")
register(GateConfig, "gate", "gate")
