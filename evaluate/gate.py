"""The gate: rules on the bounds of metrics, and the exit code that a scheduler acts on.

A rule on an interval's bound is undecided when the interval straddles the threshold: more held-out
pictures would decide it, in one direction or the other.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping

from curate.run.cli import EXIT_GATE_FAILED, EXIT_UNDECIDABLE
from evaluate.config import GateConfig, GateRule
from evaluate.glossary import shown
from evaluate.results import Check, Metric

_COMPARE = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}
_BOUNDS = {"value": "value", "ci_low": "lower bound", "ci_high": "upper bound"}


def check_all(config: GateConfig, metrics: Mapping[str, Metric], word: str) -> tuple[Check, ...]:
    """Every rule's outcome; ``word`` is the verdict, which rules reach as the metric ``verdict``."""
    return tuple(_check(name, rule, metrics, word) for name, rule in config.rules.items())


def decide(checks: tuple[Check, ...]) -> str:
    """``failed`` if any rule failed, else ``undecided`` if any is, else ``passed``."""
    statuses = {check.status for check in checks}
    return next((s for s in ("failed", "undecided") if s in statuses), "passed")


def exit_code(config: GateConfig, outcome: str) -> int:
    """0 passed, 1 failed, 3 undecided, unless ``gate.on_undecided`` says what that means."""
    if outcome == "undecided":
        undecided = {"exit_3": EXIT_UNDECIDABLE, "pass": 0, "fail": EXIT_GATE_FAILED}
        return undecided[config.on_undecided]
    return EXIT_GATE_FAILED if outcome == "failed" else 0


def _check(name: str, rule: GateRule, metrics: Mapping[str, Metric], word: str) -> Check:
    if rule.metric == "verdict":
        met = (word in rule.values) == (rule.op == "in")
        demand = f"{'one of' if rule.op == 'in' else 'none of'} {', '.join(rule.values)}"
        return Check(name, rule.metric, demand, word, _status(rule, met), "")
    demand = f"{_BOUNDS[rule.use]} {rule.op} {shown(rule.metric, Metric(rule.threshold))}"
    metric = metrics[rule.metric]
    if metric.value is None:
        status = "undecided" if rule.required else "skipped"
        return Check(name, rule.metric, demand, "not measured", status, metric.reason)
    met = _holds(rule, metric)
    status = "undecided" if met is None and rule.severity == "fail" else _status(rule, bool(met))
    why = "the interval straddles the threshold" if met is None else ""
    return Check(name, rule.metric, demand, shown(rule.metric, metric), status, why)


def _holds(rule: GateRule, metric: Metric) -> bool | None:
    """Whether the demanded bound satisfies the rule; None where only the other bound does."""
    assert metric.value is not None
    assert rule.threshold is not None
    compare, value = _COMPARE[rule.op], metric.value
    low = value if metric.low is None else metric.low
    high = value if metric.high is None else metric.high
    demanded, other = {"value": (value, value), "ci_low": (low, high), "ci_high": (high, low)}[
        rule.use
    ]
    if compare(demanded, rule.threshold):
        return True
    return None if compare(other, rule.threshold) else False


def _status(rule: GateRule, met: bool) -> str:
    return "passed" if met else {"fail": "failed", "warn": "warned"}[rule.severity]
