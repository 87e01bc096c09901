"""The gate's exit code for every way in which a rule can end."""

from __future__ import annotations

import pytest

from curate.run.schema import UserError
from evaluate.config import GateConfig, GateRule
from evaluate.gate import check_all, decide, exit_code
from evaluate.results import Metric

BELOW_ZERO = {"metric": "heldout_change", "op": "<", "threshold": 0.0, "use": "ci_high"}
CLEARLY_BETTER = Metric(-0.06, -0.07, -0.05, 128)
CLEARLY_WORSE = Metric(0.06, 0.05, 0.07, 128)
STRADDLING = Metric(-0.01, -0.03, 0.01, 128)


def gate(measured: Metric, on_undecided: str = "exit_3", **rule):
    config = GateConfig({"rule": GateRule(**{**BELOW_ZERO, **rule})}, on_undecided)
    checks = check_all(config, {"heldout_change": measured}, "converged")
    return checks[0].status, exit_code(config, decide(checks))


@pytest.mark.parametrize(
    ("metric", "rule", "outcome"),
    [
        (CLEARLY_BETTER, {}, ("passed", 0)),
        (CLEARLY_WORSE, {}, ("failed", 1)),
        (CLEARLY_WORSE, {"severity": "warn"}, ("warned", 0)),
        (STRADDLING, {}, ("undecided", 3)),
        (STRADDLING, {"use": "value"}, ("passed", 0)),
        (STRADDLING, {"severity": "warn"}, ("warned", 0)),
        (Metric(reason="few"), {}, ("undecided", 3)),
        (Metric(reason="few"), {"required": False}, ("skipped", 0)),
        (CLEARLY_BETTER, {"threshold": -0.05}, ("undecided", 3)),  # the bound itself is not below
        (CLEARLY_BETTER, {"threshold": -0.05, "op": "<="}, ("passed", 0)),
        (CLEARLY_BETTER, {"threshold": -0.1}, ("failed", 1)),
        (CLEARLY_WORSE, {"op": ">", "use": "ci_low", "threshold": 0.04}, ("passed", 0)),
        (Metric(2.0), {"threshold": 3.0}, ("passed", 0)),  # no interval: the value decides
    ],
)
def test_rule(metric: Metric, rule: dict, outcome: tuple):
    assert gate(metric, **rule) == outcome


@pytest.mark.parametrize(("on_undecided", "code"), [("exit_3", 3), ("pass", 0), ("fail", 1)])
def test_what_undecided_means_is_chosen(on_undecided: str, code: int):
    assert gate(STRADDLING, on_undecided=on_undecided) == ("undecided", code)


def test_a_failed_rule_outweighs_an_undecided_one():
    rules = {
        "open": GateRule(**BELOW_ZERO),
        "broken": GateRule(metric="verdict", op="not_in", values=["diverged"]),
    }
    config = GateConfig(rules)
    checks = check_all(config, {"heldout_change": STRADDLING}, "diverged")
    assert [check.status for check in checks] == ["undecided", "failed"]
    assert exit_code(config, decide(checks)) == 1


@pytest.mark.parametrize(("op", "status"), [("in", "passed"), ("not_in", "failed")])
def test_words(op: str, status: str):
    rule = {"metric": "verdict", "op": op, "values": ["converged"], "threshold": None}
    assert gate(CLEARLY_BETTER, **rule)[0] == status


def test_no_rules_pass():
    assert exit_code(GateConfig(), decide(check_all(GateConfig(), {}, "diverged"))) == 0


@pytest.mark.parametrize(
    "wrong",
    [
        {"op": "=="},
        {"use": "mean"},
        {"severity": "panic"},
        {"threshold": None},
        {"values": ["a"]},
        {"op": "in"},
        {"op": "in", "threshold": None, "values": ["converged"]},
    ],
)
def test_rules_that_make_no_sense_are_refused_at_once(wrong: dict):
    with pytest.raises(UserError, match="heldout_change"):
        GateRule(**{**BELOW_ZERO, **wrong})


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (
            {**BELOW_ZERO, "metric": "heldout_chnage", "required": False},
            "heldout_chnage.*heldout_change,",
        ),
        ({**BELOW_ZERO, "metric": "verdict"}, "verdict takes in and not_in"),
        ({"metric": "verdict", "op": "not_in", "values": ["divergd"]}, "divergd.*diverged, "),
    ],
)
def test_a_misspelt_rule_does_not_pass(rule: dict, message: str):
    with pytest.raises(UserError, match=message):
        GateRule(**rule)


def test_an_older_name_of_a_metric_is_accepted_in_silence(capsys):
    rule = GateRule(**{**BELOW_ZERO, "metric": "probe_change"})
    assert rule.metric == "train_probe_change"
    assert capsys.readouterr() == ("", "")
