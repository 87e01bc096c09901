"""The typed schema of ``conf/evaluate.yaml`` and its groups, with the range of every value."""

from __future__ import annotations

from dataclasses import dataclass, field

from omegaconf import MISSING

from curate.clip.config import ClipConfig
from curate.run.cli import UserError, check, register
from evaluate.glossary import GLOSSARY
from evaluate.verdict import Word
from finetune.config import RunConfig

SAMPLERS = ("dpm_solver++", "ddim", "ddpm")
SPACINGS = ("leading", "trailing", "linspace")
OPERATORS = ("<", "<=", ">", ">=", "in", "not_in")
BOUNDS = ("value", "ci_low", "ci_high")
SEVERITIES = ("fail", "warn")
UNDECIDED = ("exit_3", "pass", "fail")


def _one_of(key: str, value: str, accepted: tuple[str, ...]) -> None:
    check(value in accepted, key, value, ", ".join(accepted))


@dataclass
class GridConfig:
    """The frozen grid of losses: items of either split × noise levels × noises for each."""

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
        rows: held-out captions shown side by side in the report.
        clip_captions: held-out captions that the CLIP score is measured on; 0 leaves it out.
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
    """One demand on one metric of ``report.json``.

    Attributes:
        use: which bound must satisfy it. With ``ci_low`` or ``ci_high``, a rule that the other bound
            satisfies alone is undecided: the interval straddles the threshold.
        severity: a broken ``warn`` rule is shown and does not fail the gate.
        required: whether a metric that was not measured leaves the gate undecided.
    """

    metric: str = MISSING
    op: str = MISSING
    threshold: float | None = None
    values: list[str] = field(default_factory=list)
    use: str = "value"
    severity: str = "fail"
    required: bool = True

    def __post_init__(self) -> None:
        _one_of("gate.rules.*.metric", self.metric, tuple(GLOSSARY))
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
    """Rules by name, and what becomes of the exit code when they cannot be decided."""

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
