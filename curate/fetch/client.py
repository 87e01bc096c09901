"""One attempt at one address, with every guard of safety and politeness."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import Self
from urllib.parse import urljoin

import aiohttp

from curate.fetch import bodies, picture
from curate.fetch.answer import STORED, Answer, Way
from curate.fetch.config import FetchConfig
from curate.fetch.lookups import Lookup
from curate.fetch.opt_out import OptOut
from curate.fetch.reservations import reserved
from curate.fetch.resolver import HOP, Hop
from curate.fetch.robots import Robots
from curate.fetch.room import Part, Room
from curate.fetch.status import REDIRECTS, retry_after_s, state_of
from curate.fetch.targets import BadAddress, Target, in_dns, parse
from curate.fetch.transport import Transport


class Client:
    """Asks addresses for pictures while its ``async with`` lasts.

    How many requests run at one time, how often and when again is decided by whoever calls `ask`.
    """

    def __init__(
        self,
        config: FetchConfig,
        opt_out: OptOut | None = None,
        *,
        resolver: Lookup | None = None,
        tls: ssl.SSLContext | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Read the opt-out lists, unless they are given.

        Args:
            config: all limits and exceptions.
            opt_out: the lists of ``config``, read before.
            resolver: a host's name to its addresses, blocking, in place of the system's.
            tls: authorities in place of the system's.
            clock: seconds that only grow.

        Raises:
            UserError: an opt-out list cannot be read.
        """
        self.opt_out = OptOut(config) if opt_out is None else opt_out
        self._config, self._lookup, self._tls, self._clock = config, resolver, tls, clock
        self._room = Room(clock=clock)
        self._max_bytes = int(config.max_mb * 1e6)

    async def __aenter__(self) -> Self:
        self._transport = Transport(self._config, self._lookup, self._tls)
        self._robots = Robots(self._transport, self._config, self._clock)
        # One thread: the pixels of one picture at a time are in memory.
        self._decoder = ThreadPoolExecutor(1, thread_name_prefix="decode")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._robots.close()
        await self._transport.close()
        self._decoder.shutdown(wait=False, cancel_futures=True)

    def crawl_delay(self, name: str) -> float | None:
        """Seconds that a host, as ``name:port``, asks to leave between requests; None if it does not."""
        if not name.isascii():
            try:
                host, _, port = name.rpartition(":")
                name = f"{in_dns(host)}:{port}"
            except ValueError:
                return None
        return self._robots.crawl_delay(name)

    async def get(self, url: str) -> Answer:
        """One attempt, its redirects followed at once; whatever a server does is an Answer."""
        way = Way()
        while (answer := await self.ask(url, way)).elsewhere:
            url, way = answer.elsewhere, way.and_then(answer)
        return replace(answer, seconds=way.seconds + answer.seconds)

    async def ask(self, url: str, way: Way) -> Answer:
        """One request; a redirect is not followed, so that the limits of the next host can be kept.

        Args:
            url: what is asked for.
            way: the redirects that led there, which share ``fetch.timeout_s`` with this request.
        """
        started, status = self._clock(), way.status
        try:
            target = parse(url)
        except BadAddress as error:
            return Answer("redirects" if status else "bad_address", str(error), http_status=status)
        with Part(self._room) as part:
            answer = await self._within_limit(url, target, way, part)
            if answer.elsewhere:
                answer = self._led(answer, target, way)
            if answer.state == STORED and not picture.seems_whole(answer.body, answer.extension):
                loop = asyncio.get_running_loop()
                answer = await loop.run_in_executor(self._decoder, picture.looked_through, answer)
        seconds = self._clock() - started - part.waited_s
        status = answer.http_status or status
        return replace(answer, seconds=seconds, http_status=status, host=target.name)

    async def _within_limit(self, url: str, target: Target, way: Way, part: Part) -> Answer:
        HOP.set(None)
        try:
            async with asyncio.timeout(max(0.0, self._config.timeout_s - way.seconds)) as limit:
                part.limit = limit
                return await self._asked(url, target, way.status, part)
        except TimeoutError:
            return _late(HOP.get() or Hop())

    def _led(self, answer: Answer, target: Target, way: Way) -> Answer:
        """A redirect with its whole address, or why it is none to follow."""
        if way.redirects >= self._config.max_redirects:
            error = "more than fetch.max_redirects"
        else:
            try:
                return replace(answer, elsewhere=_absolute(target, answer.elsewhere))
            except BadAddress as bad:
                error = str(bad)
        return Answer("redirects", error, http_status=answer.http_status)

    async def _asked(self, text: str, target: Target, status: int, part: Part) -> Answer:
        if self.opt_out.has_host(target.host) or self.opt_out.has_address(text):
            return Answer("opted_out")
        if (failure := await self._transport.look_up(target, status)) is not None:
            return failure
        if self._config.robots and (refusal := await self._robots.refusal(target)) is not None:
            return refusal
        return await self._transport.ask(target, partial(self._read, part), status)

    async def _read(self, part: Part, response: aiohttp.ClientResponse) -> Answer:
        """What an answer is, by its headers first."""
        status, headers = response.status, response.headers
        is_redirect = status in REDIRECTS
        if (is_redirect or status == 200) and (rule := reserved(response)):
            return Answer("reserved", rule, http_status=status)
        if is_redirect:
            if location := headers.get("Location"):
                return Answer("redirects", http_status=status, elsewhere=location)
            return Answer("redirects", "no Location", http_status=status)
        if status != 200:
            state = state_of(status)
            error = f"status {status}" if state in ("bad_answer", "server_error") else ""
            # Of other answers it is of the address, where it is said at all (RFC 9110, 10.2.3).
            is_busy = status in (429, 503)
            wait = retry_after_s(headers.get("Retry-After")) if is_busy else None
            return Answer(state, error, http_status=status, retry_after_s=wait)
        body = await bodies.read(response, self._max_bytes, part)
        answer = picture.by_header(body, self._config.max_pixels)
        return replace(answer, http_status=status)


def _late(hop: Hop) -> Answer:
    """The Answer of an attempt that took ``fetch.timeout_s``, by where it was then."""
    if hop.is_resolving:
        return Answer("dns_failed", "the name server does not keep up", http_status=hop.status)
    return Answer("timeout", "no whole answer within fetch.timeout_s", http_status=hop.status)


def _absolute(target: Target, location: str) -> str:
    """The address that a redirect names.

    Raises:
        BadAddress: it is none.
    """
    try:
        text = urljoin(target.text, location.strip())
    except ValueError as error:
        raise BadAddress("an address that cannot be read") from error
    parse(text)
    return text
