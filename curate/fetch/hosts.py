"""What is known of each host while a fetch runs: when it may be asked next, and whether at all."""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Any

from curate.fetch.answer import Answer
from curate.fetch.config import FetchConfig
from curate.fetch.targets import BadAddress, parse

FAILURES = 5
"""Different addresses in a row without an answer after which a host is left alone."""

TRIALS = 5
"""Of a host that has answered before: addresses without an answer, one after the other, before it is given up.

Among many addresses of one host some hang by themselves, and such requests end at the same time.
"""

REST_S, MAX_REST_S = 30.0, 3600.0
"""Seconds for which it is left alone, at first and, doubled each time, at most."""

KEPT = 20_000
"""Hosts without a waiting row that are still remembered, at about 400 bytes each."""

NOT_ASKED = {"bad_address", "opted_out", "robots", "forbidden_network", "unknown_host"}
"""States in which the host got no request, so that they say nothing of it and need not be paced."""

_NO_CONNECTION = {"dns_failed", "cannot_connect", "timeout", "cut_short", "robots_unreachable"}
_BUSY = {429, 503}
_SLOWER, _FASTER = 2.0, 0.95  # factors of the pause between requests after a 429, another answer
_LEAST_PAUSE_S = 0.1  # after the first 429

_NONE: deque[Any] = deque()  # shared by hosts without rows: it takes more memory than the host


def host_of(url: str) -> str | None:
    """``name:port`` in lower case, the unit of rates and limits; None if the address cannot be asked.

    >>> host_of("https://Example.org/a.jpg"), host_of("ftp://example.org/"), host_of("http://[::1/")
    ('example.org:443', None, None)
    """
    try:
        return parse(url).name
    except BadAddress:
        return None


class Host:
    """One host: its waiting rows, and what its answers say of the next request.

    A host that has not answered yet is asked one thing at a time: its name is then looked up once, and
    robots.txt is known before the second request.

    Attributes:
        name: see `host_of`; "" for all addresses without a host, which nothing limits.
        queue: what waits to be asked.
        rows: how many rows wait, run or wait for another attempt.
        running: requests under way.
        wake_at: when the scheduler looks at it again, inf if it need not.
        is_listed: whether the scheduler has it among those to ask.
    """

    __slots__ = (
        *("name", "queue", "rows", "running", "wake_at", "is_listed", "_config", "_crawl_delay"),
        *("_next_at", "_paused_until", "_last_start", "_pause_s", "_slowed_at"),
        *("_failures", "_is_alive", "_rest_until", "_rest_s", "_closed", "_closed_until"),
        *("_answered_at", "_trials"),
    )

    def __init__(
        self, name: str, config: FetchConfig, crawl_delay: Callable[[str], float | None]
    ) -> None:
        self.name = name
        self.queue: deque[Any] = _NONE
        self.rows = self.running = 0
        self.wake_at = math.inf
        self.is_listed = False
        self._config, self._crawl_delay = config, crawl_delay
        self._next_at = self._paused_until = self._last_start = self._slowed_at = -math.inf
        self._pause_s = 0.0
        self._failures = self._trials = 0
        self._answered_at = -math.inf  # when the latest request that was answered had started
        self._is_alive = not name
        self._rest_until, self._rest_s = math.inf, REST_S
        self._closed: Answer | None = None
        self._closed_until = -math.inf

    @property
    def start_at(self) -> float:
        """When the next request may start."""
        return max(self._next_at, self._paused_until)

    @property
    def is_on_trial(self) -> bool:
        """Whether the next request decides if the host is asked at all."""
        return self._rest_until < math.inf

    @property
    def has_room(self) -> bool:
        """Whether another request may run beside those under way."""
        return not self.running or (
            self._is_alive and (not self.name or self.running < self._config.host_connections)
        )

    def closed(self, now: float) -> Answer | None:
        """The answer for every row, which is not asked; None if the host may be asked."""
        return self._closed if self._closed and now < self._closed_until else None

    def start(self, now: float) -> None:
        """A request starts."""
        self.running += 1
        if self.name:
            self._last_start = now
            self._next_at = now + self._between_s()

    def end(self, started: float, now: float, answer: Answer, *, is_first: bool = True) -> None:
        """A request that started then has ended so; whether it was the first one for its address."""
        self.running -= 1
        if not self.name:
            return
        state = answer.state
        was_asked = state not in NOT_ASKED
        if state == "unknown_host":
            self._close(Answer(state, answer.error), math.inf)
        elif state in _NO_CONNECTION and _has_no_answer(answer):
            self._fail(started, now, answer, is_first)
        elif was_asked:
            self._answered(started, now, answer)
        if self._last_start == started:  # robots.txt may have become known
            self._next_at = started + (self._between_s() if was_asked else 0.0)
        self._check_crawl_delay(now)

    def back_off(self, until: float) -> None:
        """Ask nothing before this time."""
        self._paused_until = max(self._paused_until, until)

    def _between_s(self) -> float:
        rate = self._config.host_rate
        paced = max(1 / rate if rate else 0.0, self._pause_s)
        return max(paced, self._crawl_delay(self.name) or 0.0)

    def _check_crawl_delay(self, now: float) -> None:
        delay = self._crawl_delay(self.name)
        if delay is not None and delay > self._config.max_wait_s:
            error = "by the Crawl-delay of robots.txt"
            self._close(Answer("asks_to_wait", error), now + delay)

    def _answered(self, started: float, now: float, answer: Answer) -> None:
        """The host is there."""
        self._answered_at = max(self._answered_at, started)
        self._failures, self._trials = 0, 0
        self._rest_until, self._rest_s = math.inf, REST_S
        self._is_alive = True
        if answer.state == "rate_limited" or _is_busy(answer):
            self._is_alive = False  # one at a time until it answers otherwise
            if started > self._slowed_at:  # not once for each of those that ran at one time
                self._slowed_at = now
                slower = max(self._between_s(), _LEAST_PAUSE_S) * _SLOWER
                self._pause_s = min(slower, self._config.max_wait_s)
            self._heed(now, answer)
        elif self._pause_s:
            self._pause_s *= _FASTER
            if self._pause_s < _LEAST_PAUSE_S:
                self._pause_s = 0.0

    def _heed(self, now: float, answer: Answer) -> None:
        """Retry-After is of the whole host; its rows are not asked, which is all that is known of them."""
        seconds = (answer.retry_after_s or 0.0) if _is_busy(answer) else 0.0
        if seconds > self._config.max_wait_s:
            error = "by Retry-After, with 429 or 503"
            self._close(Answer("asks_to_wait", error), now + seconds)
        else:
            self.back_off(now + seconds)

    def _fail(self, started: float, now: float, answer: Answer, is_first: bool) -> None:
        """No connection: after several, a rest; after the trial that follows it, no rows at all.

        What began before a request that was answered tells of its own address, not of the host, and so does an
        address that fails once more.
        """
        if started < self._answered_at:
            return
        if started >= self._rest_until:
            self._trials += 1
            if self._answered_at > -math.inf and self._trials < TRIALS:
                return
            self._trials = 0
            self._rest_s = min(2 * self._rest_s, MAX_REST_S)
            self._rest_until = now + self._rest_s
            error = f"no connection several times in a row, lastly {answer.state}"
            self._close(Answer("host_down", error), self._rest_until)
            return
        if not is_first:
            return
        self._failures += 1
        if self._failures >= FAILURES and self._rest_until == math.inf:
            self._rest_until = now + self._rest_s
            self._is_alive = False
            self.back_off(self._rest_until)

    def _close(self, answer: Answer, until: float) -> None:
        self._closed, self._closed_until = answer, until
        self._is_alive = False


def _is_busy(answer: Answer) -> bool:
    """Whether a Retry-After is of the host: of other answers it is of the address."""
    return answer.http_status in _BUSY and bool(answer.retry_after_s)


def _has_no_answer(answer: Answer) -> bool:
    """Whether nothing came of the host: a robots.txt with an error of the server is an answer."""
    return answer.state != "robots_unreachable" or not answer.http_status


class Hosts:
    """The hosts by name; of those without a row only the latest `KEPT`."""

    def __init__(
        self, config: FetchConfig, crawl_delay: Callable[[str], float | None], kept: int = KEPT
    ) -> None:
        self._config, self._crawl_delay, self._kept = config, crawl_delay, kept
        self._busy: dict[str, Host] = {}
        self._idle: OrderedDict[str, Host] = OrderedDict()

    def __len__(self) -> int:
        return len(self._busy) + len(self._idle)

    def busy(self, name: str) -> Host:
        """The host of this name, which has a row now."""
        host = self._busy.get(name)
        if host is None:
            host = self._idle.pop(name, None)
            host = host or Host(name, self._config, self._crawl_delay)
            host.queue = deque()
            self._busy[name] = host
        return host

    def idle(self, host: Host, now: float) -> None:
        """The host has no row left."""
        del self._busy[host.name]
        host.queue = _NONE
        self._idle[host.name] = host
        while len(self._idle) > self._kept:
            name, oldest = self._idle.popitem(last=False)
            if oldest.start_at > now and len(self._idle) < 2 * self._kept:
                self._idle[name] = oldest  # forgotten, it would be asked too soon
                break
