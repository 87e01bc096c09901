"""The gate: rules on metrics, and the exit code that a scheduler acts on.

A rule on the bound of an interval that contains the threshold is undecided if that bound breaks it:
with more held-out pictures it would pass or fail.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import replace

from curate.run.cli import EXIT_GATE_FAILED, EXIT_UNDECIDABLE
from evaluate.config import GateConfig, GateRule
from evaluate.outputs.glossary import shown
from evaluate.results import NOT_MEASURED, Check, Metric

STATES = ("failed", "undecided", "warned", "passed")  # the first that a rule is in is the gate's
_COMPARE = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}
_BOUNDS = {"value": "value", "ci_low": "lower bound", "ci_high": "upper bound"}


def check_all(
    config: GateConfig,
    metrics: Mapping[str, Metric],
    word: str,
    instruments: Mapping[str, str] | None = None,
) -> tuple[Check, ...]:
    """The outcome of every rule.

    Args:
        config: the rules.
        metrics: what was measured, by name.
        word: the verdict, which rules name as the metric ``verdict``.
        instruments: what metrics were measured with, by name, see ``evaluators.instruments``.
    """
    checks = (_check(name, rule, metrics, word) for name, rule in config.rules.items())
    return tuple(_with_instrument(check, instruments or {}) for check in checks)


def _with_instrument(check: Check, instruments: Mapping[str, str]) -> Check:
    if check.measured == NOT_MEASURED or check.metric not in instruments:
        return check
    return replace(check, why="; ".join(filter(None, [check.why, instruments[check.metric]])))


def decide(checks: tuple[Check, ...]) -> str:
    """The gate's state.

    ``failed`` if a rule failed; else ``undecided`` if a required metric was not measured or its interval
    contains the threshold; else ``warned`` if an optional rule is broken or was not measured; else
    ``passed``: all rules are met.
    """
    statuses = {"warned" if check.status == "skipped" else check.status for check in checks}
    return next((state for state in STATES if state in statuses), "passed")


def exit_code(config: GateConfig, outcome: str) -> int:
    """0 passed or warned, 1 failed, 3 undecided unless ``gate.on_undecided`` gives another code for that."""
    if outcome == "undecided":
        undecided = {"exit_3": EXIT_UNDECIDABLE, "pass": 0, "fail": EXIT_GATE_FAILED}
        return undecided[config.on_undecided]
    return EXIT_GATE_FAILED if outcome == "failed" else 0


def _check(name: str, rule: GateRule, metrics: Mapping[str, Metric], word: str) -> Check:
    if rule.metric == "verdict":
        met = (word in rule.values) == (rule.op == "in")
        words = f"{'one of' if rule.op == 'in' else 'none of'} {', '.join(rule.values)}"
        return Check(name, rule.metric, words, word, _status(rule, met), "")
    words = f"{_BOUNDS[rule.use]} {rule.op} {shown(rule.metric, Metric(rule.threshold))}"
    metric = metrics[rule.metric]
    if metric.value is None:
        status = "undecided" if rule.required else "skipped"
        return Check(name, rule.metric, words, NOT_MEASURED, status, metric.reason)
    met = _holds(rule, metric)
    status = "undecided" if met is None and rule.severity == "fail" else _status(rule, bool(met))
    why = "the interval contains the threshold" if met is None else ""
    return Check(name, rule.metric, words, shown(rule.metric, metric), status, why)


def _holds(rule: GateRule, metric: Metric) -> bool | None:
    """Whether the rule's bound satisfies it; None if only the interval's other bound does."""
    assert metric.value is not None
    assert rule.threshold is not None
    compare, value = _COMPARE[rule.op], metric.value
    low = value if metric.low is None else metric.low
    high = value if metric.high is None else metric.high
    bound, other = {
        "value": (value, value),
        "ci_low": (low, high),
        "ci_high": (high, low),
    }[rule.use]
    if compare(bound, rule.threshold):
        return True
    return None if compare(other, rule.threshold) else False


def _status(rule: GateRule, met: bool) -> str:
    return "passed" if met else {"fail": "failed", "warn": "warned"}[rule.severity]
