"""Which address is asked next, and when again."""

from __future__ import annotations

import asyncio
import heapq
import math
import random
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterable
from itertools import count

from curate.fetch.answer import Answer, Request, Way
from curate.fetch.config import FetchConfig
from curate.fetch.hosts import NOT_ASKED, Host, Hosts, host_of

AHEAD = 256
"""Rows read ahead for each connection, so that one slow host does not hold up the others."""

SHARDS = 64
"""Shards that have rows without an answer, so that a row which takes long does not leave all later ones open."""

_PULL, _PULL_S = (
    256,
    0.005,
)  # rows and seconds of one turn of reading, between which answers are dealt with

_STRAIGHT = Way()
_END = object()

Get = Callable[[str, Way], Awaitable[Answer]]
Done = Callable[[Request, Answer], object]


async def fetch(
    requests: Iterable[Request | None],
    get: Get,
    config: FetchConfig,
    done: Done,
    *,
    crawl_delay: Callable[[str], float | None] = lambda host: None,
) -> None:
    """Ask for every request, politely and again where that may help; ``done`` gets each one's answer once.

    At most ``connections * AHEAD`` rows are held at one time. Rows of the same address among them are
    asked once. What a redirect leads to waits for its turn at its own host, and is what is asked again if that
    fails. Times are those of the running event loop.

    Args:
        requests: read bit by bit; None is a row that needs no request.
        get: one request for one address, after so many redirects; see ``curate.fetch.client.Client.ask``.
        config: limits, rates and waits.
        done: called for each request with its last answer, from the event loop's thread.
        crawl_delay: the seconds between two requests that a host (see ``hosts.host_of``) asks for, if known.

    Raises:
        Exception: what ``requests``, ``get`` or ``done`` raised; the requests under way are then cancelled.
    """
    scheduler = _Scheduler(requests, get, config, done, crawl_delay)
    workers = [asyncio.create_task(scheduler.work()) for _ in range(config.connections)]
    try:
        ended, _ = await asyncio.wait(workers, return_when=asyncio.FIRST_EXCEPTION)
        for worker in ended:
            worker.result()
    finally:
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
        scheduler.close()


class _Ask:
    """An address that is to be asked, for one row or several.

    Attributes:
        url: as the rows have it.
        at, way: what is asked now, and the redirects that led there.
        host: of that.
        last: its latest answer, if it failed before.
    """

    __slots__ = ("at", "attempts", "host", "last", "rows", "started", "url", "way")

    def __init__(self, url: str, host: Host) -> None:
        self.url = self.at = url
        self.host, self.way = host, _STRAIGHT
        self.rows: list[Request] = []
        self.attempts = 0
        self.started = 0.0
        self.last: Answer | None = None


class _Scheduler:
    """The state that the workers share; one worker is one connection."""

    def __init__(
        self,
        requests: Iterable[Request | None],
        get: Get,
        config: FetchConfig,
        done: Done,
        crawl_delay: Callable[[str], float | None],
    ) -> None:
        self._requests, self._get, self._config, self._done = iter(requests), get, config, done
        self._hosts = Hosts(config, crawl_delay)
        self._ahead = AHEAD * config.connections
        self._loop = asyncio.get_running_loop()
        self._asks: dict[str, _Ask] = {}
        self._rows = 0  # that are read and have no answer
        self._shards: Counter[int] = Counter()  # the same by shard
        self._held: Request | None = None  # the next row, of a shard that has to wait
        self._is_read = False
        self._has_read = False  # in this turn of the event loop
        self._ready: deque[Host] = deque()
        self._later: list[tuple[float, int, Host | _Ask]] = []  # a heap by time
        self._numbers = count()
        self._resting: list[asyncio.Future[None]] = []  # workers that have nothing to do
        self._timer: asyncio.TimerHandle | None = None

    async def work(self) -> None:
        """Ask one address after the other until all rows have an answer."""
        while True:
            ask = self._take()
            if ask is not None:
                answer = await self._get(ask.at, ask.way)
                self._settle(ask, answer)
                if answer.state in NOT_ASKED:
                    await asyncio.sleep(0)  # nothing was waited for, and others want their turn
            elif self._is_read and not self._rows:
                break
            else:
                await self._rest()
        while self._resting:
            self._wake()

    def close(self) -> None:
        """Leave nothing behind in the event loop."""
        if self._timer:
            self._timer.cancel()

    def _take(self) -> _Ask | None:
        """Start the next request; None if there is none for now."""
        self._read()
        now = self._loop.time()
        self._bring_due(now)
        while self._ready:
            host = self._ready.popleft()
            host.is_listed = False
            if not host.queue or not host.has_room or host.start_at > now:
                self._list(host, now)
                continue
            # An address that has failed before would say little of the host.
            is_newest_better = host.is_on_trial and host.queue[0].last
            ask = host.queue.pop() if is_newest_better else host.queue.popleft()
            host.start(now)
            ask.started = now
            ask.attempts += 1
            self._list(host, now)
            return ask
        return None

    @property
    def _may_read(self) -> bool:
        return (
            not self._is_read
            and not self._has_read
            and self._rows < self._ahead
            and (self._held is None or len(self._shards) < SHARDS)
        )

    def _read(self) -> None:
        """Read rows until enough are held, or for a moment: most of them may have an answer already."""
        if not self._may_read:
            return
        now = self._loop.time()
        for _ in range(min(_PULL, self._ahead - self._rows)):
            request, self._held = self._held or next(self._requests, _END), None
            if request is _END:
                self._is_read = True
                return
            if isinstance(request, Request):
                if len(self._shards) >= SHARDS and request.shard not in self._shards:
                    self._held = request
                    break
                self._add(request, now)
            if self._loop.time() - now >= _PULL_S:
                break
        self._has_read = True
        self._loop.call_soon(self._read_on)

    def _read_on(self) -> None:
        """The event loop has had its turn; a worker without anything to do reads more."""
        self._has_read = False
        if self._may_read:
            self._wake()

    def _add(self, request: Request, now: float) -> None:
        """A row that was read waits for its turn, unless its host is closed."""
        ask = self._asks.get(request.url)
        if ask is None:
            host = self._hosts.busy(host_of(request.url) or "")
            if (closed := host.closed(now)) is not None:
                if not host.rows:
                    self._hosts.idle(host, now)
                self._done(request, closed)
                return
            ask = self._asks[request.url] = _Ask(request.url, host)
            host.rows += 1
            host.queue.append(ask)
            self._list(host, now)
        ask.rows.append(request)
        self._rows += 1
        self._shards[request.shard] += 1

    def _list(self, host: Host, now: float) -> None:
        """Put a host among those to ask, or where its time will bring it there."""
        if host.is_listed or not host.queue or not host.has_room:
            return
        start_at = host.start_at
        if start_at <= now:
            host.is_listed = True
            host.wake_at = math.inf
            self._ready.append(host)
            self._wake()
        elif start_at != host.wake_at:
            host.wake_at = start_at
            self._put_off(start_at, host)

    def _put_off(self, until: float, what: Host | _Ask) -> None:
        heapq.heappush(self._later, (until, next(self._numbers), what))
        if self._timer is None or until < self._timer.when():
            self._set_timer()

    def _set_timer(self) -> None:
        if self._timer:
            self._timer.cancel()
        self._timer = self._loop.call_at(self._later[0][0], self._ring) if self._later else None

    def _ring(self) -> None:
        """Something is due, which the next worker deals with; if none rests, one does when it is free."""
        self._timer = None
        self._wake()

    def _bring_due(self, now: float) -> None:
        """Deal with what has waited for its time."""
        if not self._later or self._later[0][0] > now:
            if self._later and self._timer is None:  # the loop may ring a nanosecond too soon
                self._set_timer()
            return
        while self._later and self._later[0][0] <= now:
            when, _, what = heapq.heappop(self._later)
            if isinstance(what, Host):
                if what.wake_at == when:  # otherwise it was listed meanwhile
                    what.wake_at = math.inf
                    self._list(what, now)
            elif (closed := what.host.closed(now)) is not None:
                self._end(what, what.last or closed, now)
            else:
                what.host.queue.appendleft(what)
                self._list(what.host, now)
        self._set_timer()

    def _settle(self, ask: _Ask, answer: Answer) -> None:
        """Hand on an answer, or have the address asked again later."""
        now = self._loop.time()
        host = ask.host
        host.end(ask.started, now, answer, is_first=ask.last is None)
        closed = host.closed(now)
        if answer.elsewhere:
            self._send_on(ask, answer, now)
        elif answer.is_transient and closed is None and ask.attempts <= self._config.retries:
            wait = self._wait_s(ask)
            if answer.state == "rate_limited":
                host.back_off(now + wait)
            ask.last = answer
            self._put_off(now + wait, ask)
        else:
            self._end(ask, answer, now)
        if closed is not None:
            while host.queue:
                other = host.queue.popleft()
                self._end(other, other.last or closed, now)
        self._list(host, now)

    def _send_on(self, ask: _Ask, answer: Answer, now: float) -> None:
        """A redirect goes to the queue of its host, ahead of what has not begun, and is the same attempt."""
        before, host = ask.host, self._hosts.busy(host_of(answer.elsewhere) or "")
        host.rows += 1
        ask.at, ask.way, ask.host = answer.elsewhere, ask.way.and_then(answer), host
        ask.last = None
        ask.attempts -= 1
        before.rows -= 1
        if not before.rows:
            self._hosts.idle(before, now)
        if (closed := host.closed(now)) is not None:
            self._end(ask, closed, now)
        else:
            host.queue.appendleft(ask)
            self._list(host, now)

    def _wait_s(self, ask: _Ask) -> float:
        """Exponential back-off with full jitter, the same for the same address and attempt."""
        longest = self._config.retry_wait_s * 2.0 ** (ask.attempts - 1)
        return random.Random(f"{ask.attempts} {ask.url}").uniform(0.0, longest)

    def _end(self, ask: _Ask, answer: Answer, now: float) -> None:
        """An address has its last answer."""
        del self._asks[ask.url]
        ask.host.rows -= 1
        if not ask.host.rows:
            self._hosts.idle(ask.host, now)
        for request in ask.rows:
            self._rows -= 1
            self._shards[request.shard] -= 1
            if not self._shards[request.shard]:
                del self._shards[request.shard]
            self._done(request, answer)

    def _wake(self) -> None:
        """Have one resting worker look for something to do."""
        while self._resting:
            future = self._resting.pop()
            if not future.done():
                future.set_result(None)
                return

    async def _rest(self) -> None:
        future = self._loop.create_future()
        self._resting.append(future)
        await future
