"""Work in a thread beside the requests rests between short pieces, unless it is in a hurry."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from curate.fetch import disk
from curate.fetch.disk import Pace


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Time that passes only by work and by rests."""
    clock = SimpleNamespace(now=1.0, rests=0)

    def sleep(seconds: float) -> None:
        clock.now += seconds
        clock.rests += 1

    monkeypatch.setattr(disk.time, "perf_counter", lambda: clock.now)
    monkeypatch.setattr(disk.time, "sleep", sleep)
    return clock


def work(pace: Pace, clock: SimpleNamespace, steps: int, step_s: float) -> None:
    for _ in range(steps):
        clock.now += step_s
        pace()


def test_rest_follows_each_millisecond_of_work(clock: SimpleNamespace):
    pace = Pace()
    pace()
    before = clock.rests
    work(pace, clock, 1000, 0.001 / 4.5)
    assert clock.rests - before == 200
    work(pace, clock, 10, 0.003)
    assert clock.rests - before == 210


def test_nobody_rests_in_a_hurry(clock: SimpleNamespace):
    pace = Pace()
    pace.is_hurried = True
    work(pace, clock, 1000, 0.005)
    assert clock.rests == 0
