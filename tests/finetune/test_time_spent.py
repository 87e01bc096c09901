"""What a training's time went to."""

from __future__ import annotations

from contextlib import suppress
from types import SimpleNamespace

import pytest

from finetune import time_spent
from finetune.time_spent import CHECKPOINTS, LOSSES, UPDATES, TimeSpent


@pytest.fixture
def clock(monkeypatch):
    """A clock that goes only when it is set."""
    now = SimpleNamespace(value=100.0)
    monkeypatch.setattr(time_spent, "time", SimpleNamespace(perf_counter=lambda: now.value))
    return now


def test_each_second_counts_once_for_the_innermost(clock):
    spent = TimeSpent()
    clock.value += 5  # for nothing that is counted
    with spent.on(LOSSES):
        clock.value += 2
        with spent.on(CHECKPOINTS):
            clock.value += 3
        clock.value += 1
    clock.value += 7
    with spent.on(UPDATES):
        clock.value += 4
        with suppress(ZeroDivisionError), spent.on(LOSSES):
            clock.value += 10
            raise ZeroDivisionError
        clock.value += 1
    assert spent.seconds == {LOSSES: 13, CHECKPOINTS: 3, UPDATES: 5}


def test_advice_names_the_setting(clock):
    spent = TimeSpent({UPDATES: 880.0, LOSSES: 110.0, CHECKPOINTS: 10.0})
    said, *advice = spent.lines()
    assert said == "16 min 40 s: updates 88 %, held-out losses 11 %, checkpoints 1 %"
    line, *_ = advice
    assert "held-out losses took 11 %" in line
    assert "heldout.every" in line
    assert TimeSpent({UPDATES: 8.8, LOSSES: 1.1}).lines() == [
        "9.9 s: updates 89 %, held-out losses 11 %"
    ]
    assert TimeSpent().lines() == []


def test_a_training_says_it_at_its_end(make_config, run_training, capsys):
    run_training(make_config(**{"train.samples": 16}))
    out = capsys.readouterr()
    line, *_ = [each for each in (out.out + out.err).splitlines() if each.startswith("time ")]
    for name in ("updates", "held-out losses", "checkpoints", "%"):
        assert name in line
