"""One attempt at one address, with every guard of safety and politeness."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Self
from urllib.parse import urljoin

import aiohttp

from curate.fetch import bodies, picture
from curate.fetch.answer import STORED, Answer
from curate.fetch.config import FetchConfig
from curate.fetch.opt_out import OptOut
from curate.fetch.reservations import reserved
from curate.fetch.resolver import HOP, Lookup
from curate.fetch.robots import Robots
from curate.fetch.status import REDIRECTS, retry_after_s, state_of
from curate.fetch.targets import BadAddress, Target, in_dns, parse
from curate.fetch.transport import Transport


@dataclass(frozen=True, slots=True)
class _Elsewhere:
    """A redirect to ``location``, by ``status``."""

    location: str
    status: int


@dataclass(slots=True)
class _Way:
    """How far an attempt has come: the last host that it was led to, and the status of the redirect there."""

    host: str = ""
    status: int = 0


class Client:
    """Asks addresses for pictures while its ``async with`` lasts.

    How many requests run at one time, how often and when again is decided by whoever calls `get`.
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
        self._max_bytes = int(config.max_mb * 1e6)

    async def __aenter__(self) -> Self:
        self._transport = Transport(self._config, self._lookup, self._tls)
        self._robots = Robots(self._transport, self._config, self._clock)
        self._decoder = ThreadPoolExecutor(
            1, thread_name_prefix="decode"
        )  # one picture's pixels at a time
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

    async def get(self, request_url: str) -> Answer:
        """One attempt, redirects included; whatever a server does is an Answer."""
        started, way = self._clock(), _Way()
        HOP.set(None)
        try:
            async with asyncio.timeout(self._config.timeout_s):
                answer = await self._followed(request_url, way)
        except TimeoutError:
            status = hop.status if (hop := HOP.get()) else 0
            answer = Answer("timeout", "no whole answer within fetch.timeout_s", http_status=status)
        if answer.state == STORED and not picture.seems_whole(answer.body, answer.extension):
            loop = asyncio.get_running_loop()
            answer = await loop.run_in_executor(self._decoder, picture.by_pixels, answer)
        return replace(answer, seconds=self._clock() - started, host=way.host)

    async def _followed(self, text: str, way: _Way) -> Answer:
        """The Answer at the end of the redirects; each address on the way passes the same guards."""
        for _ in range(self._config.max_redirects + 1):
            try:
                target = parse(text)
            except BadAddress as error:
                state = "redirects" if way.status else "bad_address"
                return Answer(state, str(error), http_status=way.status)
            way.host = target.name
            answer = await self._asked(text, target, way.status)
            if isinstance(answer, Answer):
                return answer if answer.http_status else replace(answer, http_status=way.status)
            way.status = answer.status
            try:
                text = urljoin(target.text, answer.location.strip())
            except ValueError:
                return Answer("redirects", "an address that cannot be read", http_status=way.status)
        return Answer("redirects", "more than fetch.max_redirects", http_status=way.status)

    async def _asked(self, text: str, target: Target, status: int) -> Answer | _Elsewhere:
        if self.opt_out.has_host(target.host) or self.opt_out.has_address(text):
            return Answer("opted_out")
        if self._config.robots and (refusal := await self._robots.refusal(target)) is not None:
            return refusal
        return await self._transport.ask(target, self._read, status)

    async def _read(self, response: aiohttp.ClientResponse) -> Answer | _Elsewhere:
        """What an answer is, by its headers first."""
        status, headers = response.status, response.headers
        if status in REDIRECTS:
            if location := headers.get("Location"):
                return _Elsewhere(location, status)
            return Answer("redirects", "no Location", http_status=status)
        if status != 200:
            state = state_of(status)
            error = f"status {status}" if state in ("bad_answer", "server_error") else ""
            # Of other answers it is of the address, where it is said at all (RFC 9110, 10.2.3).
            is_busy = status in (429, 503)
            wait = retry_after_s(headers.get("Retry-After")) if is_busy else None
            return Answer(state, error, http_status=status, retry_after_s=wait)
        if rule := reserved(response):
            return Answer("reserved", rule, http_status=status)
        body = await bodies.read(response, self._max_bytes)
        answer = picture.by_header(body, self._config.max_pixels)
        return replace(answer, http_status=status)
