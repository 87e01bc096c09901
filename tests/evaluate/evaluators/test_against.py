"""The kept checkpoint against another run's: which way, on which pictures, and when not."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from evaluate.evaluators import against
from evaluate.judged_runs.against import Against
from evaluate.judged_runs.comparable import Shared
from evaluate.measure.grid import SplitLosses
from evaluate.outputs import headline
from evaluate.results import Check, Metric
from tests.evaluate.conftest import results
from tests.evaluate.planted import table

JUDGED = results.__wrapped__()

VAL, TEST = ([f"{split}-{i:03d}" for i in range(40)] for split in ("val", "test"))


class Other:
    """A judged run with its base's losses at 0 and those of the kept checkpoint at 7."""

    kept = 7

    def __init__(self, shift: float, keys: dict[str, list[str]]) -> None:
        self._keys, self._shift = keys, shift

    def keys(self, split):
        return self._keys.get(split, [])

    def losses(self, split, step):
        keys = self.keys(split)
        return (
            table(keys, self._shift if step else 0, 0.01 if step else 0, seed=5) if keys else None
        )


def measure(other, test=None, ours=-0.1, val=VAL, shared=None):
    pictures = {split: Shared(keys, keys, keys) for split, keys in (("val", VAL), ("test", TEST))}
    losses = np.stack([table(val, 0, 0), table(val, 9), table(val, ours)])
    evaluation = SimpleNamespace(
        against=other and Against(other, {**pictures, **(shared or {})}),
        kept=2,
        table=SimpleNamespace(val=losses, keys=val),
        on_test=lambda row: test,
    )
    return dict(against.measure(evaluation))["against_change"]  # type: ignore[arg-type]


def test_no_run_is_named():
    found = measure(None)
    assert found.value is None
    assert found.reason == "not asked for, gate.against names no run"


@pytest.mark.parametrize(("theirs", "change"), [(-0.1, 0.0), (-0.15, 0.05), (-0.02, -0.08)])
def test_this_run_minus_the_other(theirs, change):
    found = measure(Other(theirs, {"val": VAL[::-1]}))
    assert found.value == pytest.approx(change, abs=0.005)
    assert found.low < change < found.high
    assert (found.n, found.groups, found.on) == (40, 40, "val")


def test_on_test_where_both_have_it():
    test = SplitLosses(np.stack([table(TEST, 0, 0), table(TEST, -0.3)]), TEST, TEST)
    found = measure(Other(-0.1, {"val": VAL, "test": TEST}), test)
    assert found.on == "test"
    assert found.value == pytest.approx(-0.2, abs=0.005)
    assert measure(Other(-0.1, {"val": VAL}), test).on == "val"
    few = SplitLosses(test.losses[:, :31], TEST[:31], TEST[:31])
    assert measure(Other(-0.1, {"val": VAL, "test": TEST}), few).on == "val"


def test_pictures_of_a_group_count_once():
    joined = Shared(VAL, ["one"] * 5 + VAL[5:], VAL)
    found = measure(Other(-0.1, {"val": VAL}), shared={"val": joined})
    assert (found.n, found.groups) == (40, 36)


def test_too_few_in_common():
    found = measure(Other(-0.1, {"val": VAL}), val=VAL[:31])
    assert found.value is None
    assert found.reason == "only 31 groups of pictures in common; at least 32 needed"


@pytest.mark.parametrize(
    ("metric", "state", "words"),
    [
        (Metric(-0.02, -0.03, -0.01), "good", "is lower than that of mine-0001: "),
        (Metric(0.02, 0.01, 0.03), "bad", "is higher than that of mine-0001: "),
        (Metric(0.0, -0.01, 0.01), "info", "does not show as different"),
    ],
)
def test_the_headline_says_it(metric, state, words):
    found = headline.findings(JUDGED.verdict, {"against_change": metric}, against="mine-0001")[-1]
    assert (found.part, found.state) == ("result", state)
    assert words in found.text


RULE = Check("not_worse_than_run", "against_change", "upper bound < +1.0 %", "+0.6 %", "passed", "")


@pytest.mark.parametrize(
    ("status", "state", "allowed"),
    [("passed", "warn", True), ("failed", "bad", False), ("undecided", "bad", False)],
)
def test_worse_within_the_gates_margin_is_said_as_allowed(status, state, allowed):
    metrics = {"against_change": Metric(0.006, 0.003, 0.009)}
    checks = [replace(RULE, status=status), replace(RULE, metric="clip_change", status="failed")]
    found = headline.findings(JUDGED.verdict, metrics, checks, "mine-0001")[-1]
    said = "That is within what the gate allows: upper bound < +1.0 %."
    assert found.state == state
    assert found.text.endswith(said) is allowed
    assert "is higher than that of mine-0001: +0.6 points [+0.3, +0.9]." in found.text


def test_the_headline_is_silent_where_it_was_not_asked():
    assert list(against.EVALUATOR.findings({"against_change": measure(None)})) == []
    assert headline.missing({"against_change": measure(None)}) == {}
