"""A fetch tells how it goes: in lines, on a terminal, and once for each cause that something is wrong."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import pytest

from curate.fetch.answer import Answer, Request
from curate.fetch.config import FetchConfig
from curate.fetch.figures import RECENT
from curate.fetch.monitor import Monitor
from curate.run.progress import Bar

CONFIG = FetchConfig(contact="me@example.org", host_rate=None)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr("tqdm.std.time", found)
    monkeypatch.setattr("curate.run.progress.time", found)
    monkeypatch.delenv("TQDM_MININTERVAL", raising=False)
    return found


def told(
    clock: Clock,
    states: list[str],
    total: int | None,
    done: int = 0,
    file: io.StringIO | None = None,
) -> list[str]:
    """What is written about one answer in each eighth of a second."""
    file = file or io.StringIO()
    with Monitor(CONFIG, total, done, file=file, clock=clock) as monitor:
        for n, state in enumerate(states):
            clock.now += 0.125
            body = bytes(30_000) if state == "stored" else b""
            answer = Answer(state, body=body, seconds=1.0 + n % 2)
            monitor.add(Request(0, n, f"http://h{n % 2}.test/{n}"), answer)
    return file.getvalue().splitlines()


def test_log_gets_lines_with_all_figures(clock: Clock):
    states = (["stored"] * 8 + ["not_found", "timeout"]) * 70
    figures = "80% stored, 0.2 MB/s; not_found 10%, timeout 10%; slowest: h1.test 2 s, h0.test 1 s"
    assert told(clock, states, 900, done=100) == [
        f"fetch: 340 of 900 url, 8 url/s, 01:10 left, {figures}",
        f"fetch: 580 of 900 url, 8 url/s, 00:40 left, {figures}",
        f"fetch: 800 of 900 url in 01:27, 8 url/s, {figures}",
    ]


@pytest.mark.parametrize(
    ("url", "answered_by", "shown"),
    [
        ("http://\x1b]0;owned\x07\x1b[2Jevil\nline/", "", ""),
        ("http://user:secret@a.test/", "", ""),
        ("http://a.test?x=user:secret", "", "a.test"),
        ("https://A.test:8080/1.jpg", "", "a.test:8080"),
        ("http://a.test/", "cdn.test:443", "cdn.test"),
        (f"http://{'a' * 10_000}/", "", "a" * 80),
    ],
)
def test_the_host_is_shown_and_nothing_else_of_the_address(
    clock: Clock, url: str, answered_by: str, shown: str
):
    file = Terminal()
    with Monitor(replace(CONFIG, host_rate=5.0), 10_000, file=file, clock=clock) as monitor:
        for n in range(RECENT):
            clock.now += 0.125
            answer = Answer("timeout", seconds=0.1, host=answered_by)
            monitor.add(Request(0, n, url), answer)
    text = file.getvalue()
    assert not any(odd in text for odd in ("secret", "owned", "[2J", "evil"))
    estimate = text.partition("if the rest is like")[2].partition("\n")[0]
    if shown:
        assert f"slowest: {shown} 0.1 s" in text
        assert f"at {shown}, which" in estimate
    else:
        assert "slowest" not in text
        assert "which" not in estimate


def test_terminal_gets_a_table(clock: Clock):
    file = Terminal()
    told(clock, ["stored", "not_found", "timeout"] * 20, 60, file=file)
    text = file.getvalue()
    assert "33% stored, 0.1 MB/s" in text
    assert "not_found 33%, timeout 33%" in text
    assert "slowest: h1.test 2 s" in text


def test_estimate_is_said_once_after_the_first_thousand(clock: Clock):
    said = [line for line in told(clock, ["stored"] * 2500, 5100, done=100) if "like" in line]
    assert said == [
        "fetch: if the rest is like the first 1,000: 5,000 addresses give about 5,000 pictures "
        "(>99% to 100%), 0.15 GB, in 10 minutes"
    ]
    assert not [line for line in told(clock, ["stored"] * 1200, None) if "like" in line]
    assert not [line for line in told(clock, ["stored"] * 1000, 1000) if "like" in line]


def warnings(lines: list[str]) -> list[str]:
    return [line for line in lines if line.startswith("warning: ")]


def test_each_cause_is_warned_of_once(clock: Clock):
    states = ["stored"] * 1000 + ["timeout"] * 1500 + ["refused"] * 3000 + ["timeout"] * 2000
    found = warnings(told(clock, states, None))
    assert len(found) == 2
    assert "Hosts or this machine's network" in found[0]
    assert "only 49% of the last 1,000" in found[0] or "only 40%" in found[0]
    assert "Hosts refuse" in found[1]


def test_short_fetch_is_judged_at_its_end(clock: Clock):
    assert len(warnings(told(clock, ["not_found"] * 150, 150))) == 1
    assert warnings(told(clock, ["not_found"] * 50, 50)) == []
    assert warnings(told(clock, ["stored", "not_found"] * 100, 200)) == []


def test_nothing_is_shown_where_bars_are_switched_off(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
):
    """``TQDM_DISABLE=1``, as CI sets it, makes bars that lack most of their attributes."""

    class Off(Bar):
        def __init__(self, **options: Any) -> None:
            super().__init__(**options, disable=True)

    monkeypatch.setattr("curate.fetch.monitor.Bar", Off)
    for file in (io.StringIO(), Terminal()):
        assert told(clock, ["stored"] * 500, 600, done=100, file=file) == []
