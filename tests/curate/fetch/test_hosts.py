"""When a host may be asked next is a matter of its limits and of its answers."""

from __future__ import annotations

import doctest
import math
from dataclasses import replace

import pytest

from curate.fetch import hosts
from curate.fetch.answer import Answer
from curate.fetch.config import FetchConfig
from curate.fetch.hosts import FAILURES, REST_S, Host, Hosts, host_of

CONFIG = FetchConfig(host_connections=4, host_rate=2.0, max_wait_s=100.0)
STORED = Answer("stored", http_status=200)
FAILED = Answer("timeout")


def host(config: FetchConfig = CONFIG, crawl_delay: float | None = None) -> Host:
    return Host("a.test:80", config, lambda name: crawl_delay)


def asked(host: Host, at: float, answer: Answer) -> None:
    host.start(at)
    host.end(at, at, answer)


def test_examples():
    assert doctest.testmod(hosts).failed == 0


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("http://A.Test/x", "a.test:80"),
        ("HTTPS://a.test", "a.test:443"),
        ("http://a.test.:8080/x", "a.test:8080"),
        ("http://bücher.test/", "xn--bcher-kva.test:80"),
        ("http://user:word@a.test/", None),
        ("http://[2001:DB8::1]/", "2001:db8::1:80"),
        ("http://a.test:0x50/", None),
        ("http://a.test:70000/", None),
        ("//a.test/x", None),
        ("data:image/png;base64,AA", None),
        ("http:///x", None),
        ("", None),
        ("http://[::1", None),
    ],
)
def test_host_is_name_and_port(url: str, name: str | None):
    assert host_of(url) == name


def test_first_request_runs_alone_until_the_host_answers():
    one = host()
    one.start(0.0)
    assert not one.has_room
    one.end(0.0, 0.1, STORED)
    for running in range(CONFIG.host_connections):
        assert one.has_room, running
        one.start(1.0)
    assert not one.has_room


def test_rate_and_crawl_delay_space_the_starts():
    for delay, between in ((None, 0.5), (0.1, 0.5), (7.0, 7.0)):
        one = host(crawl_delay=delay)
        asked(one, 1.0, STORED)
        assert one.start_at == 1.0 + between
    one = host(replace(CONFIG, host_rate=None))
    asked(one, 1.0, STORED)
    assert one.start_at == 1.0


def test_state_without_a_request_gives_the_time_back():
    one = host()
    asked(one, 1.0, Answer("opted_out"))
    assert one.start_at == 1.0
    asked(one, 2.0, Answer("redirects", http_status=301, elsewhere="http://b.test/"))
    assert one.start_at == 2.5
    one = host()
    asked(one, 1.0, STORED)
    one.start(2.0)
    asked(one, 3.0, STORED)
    one.end(2.0, 3.1, Answer("opted_out"))
    assert one.start_at == 3.5, "the last start counts"


def test_nothing_limits_addresses_without_a_host():
    none = Host("", CONFIG, lambda name: 5.0)
    for _ in range(100):
        none.start(0.0)
    assert none.has_room
    none.end(0.0, 0.0, Answer("unknown_host"))
    assert none.start_at == -math.inf
    assert none.closed(0.0) is None


def test_breaker_opens_after_failures_in_a_row_only():
    one = host()
    for n in range(FAILURES - 1):
        asked(one, float(n), FAILED)
    asked(one, 10.0, Answer("not_found", http_status=404))
    for n in range(FAILURES - 1):
        asked(one, 20.0 + n, FAILED)
    assert one.start_at < 30.0
    asked(one, 30.0, FAILED)
    assert one.start_at == 30.0 + REST_S
    assert one.closed(31.0) is None


@pytest.mark.parametrize("answer", [STORED, Answer("refused", http_status=403)])
def test_trial_decides(answer: Answer):
    one = host()
    for n in range(FAILURES):
        asked(one, float(n), FAILED)
    begin = one.start_at
    one.start(begin)
    assert not one.has_room, "one trial"
    one.end(begin, begin + 1, answer)
    assert one.closed(begin + 2) is None
    assert one.has_room
    for n in range(FAILURES - 1):
        asked(one, 100.0 + n, FAILED)
    assert one.start_at < 110.0, "the count starts at nought"


def test_failed_trial_closes_for_twice_as_long_each_time():
    one = host()
    for n in range(FAILURES):
        asked(one, float(n), FAILED)
    now, rest = one.start_at, REST_S
    for _ in range(3):
        asked(one, now, FAILED)
        rest *= 2
        closed = one.closed(now + rest - 0.1)
        assert closed
        assert closed.state == "host_down"
        assert "timeout" in closed.error
        assert one.closed(now + rest) is None
        now += rest
    asked(one, now, STORED)
    for n in range(FAILURES):
        asked(one, now + 100 + n, FAILED)
    assert one.start_at == now + 100 + FAILURES - 1 + REST_S, "forgotten by its answer"


def test_failures_that_were_under_way_are_no_trial():
    one = host(replace(CONFIG, host_connections=20, host_rate=None))
    asked(one, 0.0, STORED)
    for _ in range(12):
        one.start(1.0)
    for n in range(12):
        one.end(1.0, 11.0 + n, FAILED)
    assert one.closed(23.0) is None
    assert one.start_at == 11.0 + FAILURES - 1 + REST_S


def test_robots_txt_with_an_error_of_the_server_is_no_failure_to_connect():
    for status, expected in ((0, True), (503, False)):
        one = host()
        for n in range(FAILURES):
            asked(one, float(n), Answer("robots_unreachable", http_status=status))
        assert (one.start_at > REST_S) is expected


@pytest.mark.parametrize("state", ["rate_limited", "server_error", "robots_unreachable"])
def test_retry_after(state: str):
    one = host()
    asked(one, 0.0, Answer(state, http_status=503, retry_after_s=40.0))
    assert one.start_at == 40.0
    assert one.closed(1.0) is None
    asked(one, 40.0, Answer(state, http_status=503, retry_after_s=100.5))
    closed = one.closed(140.0)
    assert closed
    assert closed == Answer("asks_to_wait", "by Retry-After, with 429 or 503")
    assert one.closed(140.5) is None


@pytest.mark.parametrize("status", [404, 403, 500, 200])
def test_retry_after_of_another_answer_is_not_the_hosts(status: int):
    one = host()
    asked(one, 0.0, Answer("not_found", http_status=status, retry_after_s=3600.0))
    assert one.closed(1.0) is None
    assert one.start_at == 0.5


def test_shorter_retry_after_does_not_shorten_a_longer_one():
    one = host()
    asked(one, 0.0, STORED)
    one.start(1.0)
    one.start(2.0)
    for seconds in (50.0, 1.0):
        one.end(1.0, 3.0, Answer("rate_limited", http_status=429, retry_after_s=seconds))
    assert one.start_at == 53.0


def test_429_slows_once_for_those_that_ran_together_and_answers_speed_up_again():
    one = host(replace(CONFIG, host_rate=None, host_connections=9))
    asked(one, 0.0, STORED)
    for _ in range(5):
        one.start(1.0)
    for _ in range(5):
        one.end(1.0, 2.0, Answer("rate_limited", http_status=429))
    one.start(10.0)
    assert one.start_at == pytest.approx(10.2)
    assert not one.has_room, "one at a time"
    one.end(10.0, 10.0, Answer("rate_limited", http_status=429))
    asked(one, 20.0, Answer("rate_limited", http_status=429))
    assert one.start_at == pytest.approx(20.8)
    for n in range(60):
        asked(one, 30.0 + n, STORED)
    assert one.start_at == 89.0


def test_crawl_delay_beyond_max_wait_closes():
    one = host(crawl_delay=101.0)
    asked(one, 0.0, STORED)
    closed = one.closed(1.0)
    assert closed == Answer("asks_to_wait", "by the Crawl-delay of robots.txt")
    assert Answer("asks_to_wait").is_transient


def test_unknown_host_stays_closed_with_the_same_answer():
    one = host()
    asked(one, 0.0, Answer("unknown_host", "no such name"))
    assert one.closed(1e9) == Answer("unknown_host", "no such name")


def test_latest_idle_hosts_are_kept():
    known = Hosts(replace(CONFIG, host_rate=None), lambda name: None, kept=3)
    for n in range(5):
        known.idle(known.busy(f"h{n}"), 0.0)
    assert len(known) == 3
    first = known.busy("h4")
    known.idle(first, 0.0)
    assert known.busy("h4") is first
    assert known.busy("h0") is not None


def test_host_whose_time_lies_ahead_is_forgotten_last():
    known = Hosts(CONFIG, lambda name: None, kept=3)
    slow = known.busy("slow")
    slow.start(0.0)
    slow.back_off(50.0)
    slow.end(0.0, 0.1, STORED)
    known.idle(slow, 0.1)
    for n in range(20):
        known.idle(known.busy(f"h{n}"), 1.0)
    assert known.busy("slow") is slow
    assert len(known) <= 6
