"""Sums of answers, and sentences that name what is wrong and what to type."""

from __future__ import annotations

import doctest
from collections.abc import Mapping

import pytest

from curate.fetch import figures as figure
from curate.fetch.answer import PERMANENT, TRANSIENT, Answer
from curate.fetch.config import FetchConfig
from curate.fetch.figures import CAUSE_OF, HOSTS, RECENT, Figures

CONFIG = FetchConfig(contact="me@example.org")


def counted(states: Mapping[str, int], host: str = "a.test:80", seconds: float = 1.0) -> Figures:
    found = Figures()
    for state, count in states.items():
        for _ in range(count):
            body = bytes(20_000) if state == "stored" else b""
            found.add(Answer(state, body=body, seconds=seconds), host)
    return found


def test_examples():
    assert doctest.testmod(figure).failed == 0


def test_every_failure_has_a_cause_and_every_cause_a_text():
    assert set(CAUSE_OF) == set(TRANSIENT) | set(PERMANENT)
    for name in set(CAUSE_OF.values()):
        assert figure.diagnosis(counted({"timeout": 3}), name, CONFIG)


def test_recent_answers_are_the_last_thousand():
    found = counted({"stored": 500, "timeout": 300, "not_found": RECENT - 100})
    assert found.recent == {"timeout": 100, "not_found": 900, "stored": 0}
    assert found.states == {"stored": 500, "timeout": 300, "not_found": 900}
    assert found.answered == 1700
    assert found.stored_bytes == 500 * 20_000


def test_slowest_hosts_stay_known_among_many():
    found = Figures()
    for n in range(5 * HOSTS):
        found.add(Answer("stored", seconds=0.1 + n % 7 / 100), f"h{n}")
        if n == 10:
            found.add(Answer("timeout", seconds=30.0), "slow")
        assert len(found._hosts) <= HOSTS
    assert found.slowest(1) == [("slow", 30.0)]


def test_rows_that_were_not_asked_are_no_time_of_a_host():
    found = counted({"host_down": 5}, seconds=0.0)
    assert found.slowest() == []
    assert figure.slowest_line(found) == ""
    assert found.commonest() == ("", 0.0)


def test_shares_are_never_rounded_to_none_or_all():
    states = {"stored": 9990, "timeout": 9, "not_found": 1}
    assert figure.errors_line(states) == "timeout <1%, not_found <1%"
    assert figure.stored_line(counted(states), 10.0) == ">99% stored, 20.0 MB/s"
    assert figure.errors_line({"stored": 5}) == ""
    assert figure.errors_line({"timeout": 5, "stored": 0}) == "timeout 100%"


def test_estimate_of_the_whole():
    found = counted({"stored": 800, "not_found": 200})
    text = figure.estimate(found, 2.0, 5_000_000, FetchConfig(host_rate=None))
    assert text == (
        "if the rest is like the first 1,000: 5,000,000 addresses give about 4,000,000 pictures "
        "(77% to 82%), 80 GB, in 2.8 hours"
    )


def test_estimate_names_the_host_that_the_rate_limits():
    found = counted({"stored": 900}, "live.test:443")
    found.add(Answer("stored", seconds=1.0), "b.test:443")
    text = figure.estimate(found, 45.0, 10_000, CONFIG)
    assert text.endswith(
        "in 8 minutes; >99% of the addresses are at live.test:443, which is asked 20 times a second at most "
        "(fetch.host_rate)"
    )


def test_estimate_without_a_picture():
    assert "about 0 pictures (0% to <1%), 0 GB, in 10 seconds" in figure.estimate(
        counted({"not_found": 1000}), 1.0, 10_000, CONFIG
    )


@pytest.mark.parametrize(
    ("states", "expected", "typed"),
    [
        ({"stored": 499, "dns_failed": 300, "not_found": 201}, "names", "fetch.connections=32"),
        ({"stored": 300, "rate_limited": 400, "refused": 300}, "limits", "fetch.host_rate=10"),
        ({"stored": 400, "not_found": 300, "unknown_host": 300}, "gone", "6% to 86%"),
        ({"stored": 1, "timeout": 500, "cannot_connect": 499}, "slow", "fetch.timeout_s=60"),
        ({"robots": 1000}, "forbidden", "nothing is wrong"),
        ({"forbidden_network": 600, "stored": 400}, "networks", "fetch.allow_networks"),
        ({"too_large": 600, "stored": 400}, "size", "fetch.max_mb=32"),
    ],
)
def test_diagnosis(states: dict[str, int], expected: str, typed: str):
    found = counted(states)
    assert figure.cause(found) == expected
    text = figure.diagnosis(found, expected, CONFIG)
    assert typed in text
    assert text.startswith("only ")


def test_no_cause_while_half_is_stored():
    assert figure.cause(counted({"stored": 500, "timeout": 500})) is None
    assert figure.cause(Figures()) is None


def test_network_is_doubted_only_when_nothing_came():
    for stored in (0, 1):
        text = figure.diagnosis(counted({"dns_failed": 999, "stored": stored}), "names", CONFIG)
        assert ("connected to the network" in text) is not stored


def test_advice_for_the_least_settings_can_be_typed():
    least = FetchConfig(connections=1, host_connections=1, host_rate=None, contact="me@example.org")
    found = counted({"rate_limited": 9})
    assert "fetch.host_rate=20 fetch.host_connections=1," in figure.diagnosis(
        found, "limits", least
    )
    assert "fetch.connections=1," in figure.diagnosis(found, "slow", least)
