"""The typed schema of ``conf/evaluate.yaml`` and its groups, with the range of every value."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING, DictConfig

from curate.run import tracking
from curate.run.overrides import is_override, key_of, typed
from curate.run.schema import PATH, UserError, check, register
from evaluate.measure_config import MeasureConfig
from evaluate.outputs.glossary import glossary
from finetune.drawing.config import SamplerConfig
from finetune.rules import Word

OPERATORS = ("<", "<=", ">", ">=", "in", "not_in")
BOUNDS = ("value", "ci_low", "ci_high")
SEVERITIES = ("fail", "warn")
UNDECIDED = ("exit_3", "pass", "fail")
AGAINST = "against_change"
RENAMED = {"probe_change": "train_probe_change"}  # metrics by their names in older configurations


def _one_of(key: str, value: str, accepted: tuple[str, ...]) -> None:
    check(value in accepted, key, value, ", ".join(accepted))


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
        self.metric = RENAMED.get(self.metric, self.metric)
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
    """Rules by name, and which exit code an undecided gate gives.

    Attributes:
        against: another judged run, by its name or its folder, than which the kept checkpoint must not be worse.
            Without one there is no rule on ``against_change``.
    """

    rules: dict[str, GateRule] = field(default_factory=dict)
    on_undecided: str = "exit_3"
    against: str | None = field(default=None, metadata=PATH)

    def __post_init__(self) -> None:
        if self.against is None:
            self.rules = {n: r for n, r in self.rules.items() if r.metric != AGAINST}
        _one_of("gate.on_undecided", self.on_undecided, UNDECIDED)


@dataclass
class EvaluateConfig(MeasureConfig):
    """All of ``python -m evaluate``.

    Attributes:
        tracker: where the metrics go, see ``curate.run.tracking``.
    """

    gate: GateConfig = MISSING
    tracker: Any = tracking.AUTO

    def __post_init__(self) -> None:
        super().__post_init__()
        tracking.check_names(self.tracker)


def renamed(cfg: DictConfig) -> Iterator[str]:
    """For each rule of the gate that names a metric by its older name, what to type instead."""
    for name, rule in cfg.gate.rules.items():
        if rule.metric in RENAMED:
            key = f"gate.rules.{name}.metric"
            yield f"note: {key}={rule.metric} is deprecated; type {key}={RENAMED[rule.metric]}"


def refuse_ignored(cfg: DictConfig) -> None:
    """Refuse a typed setting of a rule that is not there without ``gate.against``.

    Raises:
        UserError: names the setting, and what to type with it.
    """
    if cfg.gate.against is not None:
        return
    for text in filter(is_override, typed() or []):
        _, _, inside = key_of(text).partition("gate.rules.")
        name = inside.partition(".")[0]
        if name in cfg.gate.rules and cfg.gate.rules[name].metric == AGAINST:
            raise UserError(
                f"{text} has no effect without a run to compare with; type gate.against=RUN as well, or remove it"
            )


register(EvaluateConfig, "evaluate")
register(SamplerConfig, "sampler", "sampler")
register(GateConfig, "gate", "gate")
