"""robots.txt of each origin (RFC 9309): asked for once, remembered, obeyed."""

from __future__ import annotations

import asyncio
import codecs
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urljoin

import aiohttp
from protego import Protego

from curate.fetch import bodies
from curate.fetch.answer import Answer
from curate.fetch.config import FetchConfig
from curate.fetch.reservations import AGENT
from curate.fetch.status import REDIRECTS, retry_after_s
from curate.fetch.targets import BadAddress, Target, parse
from curate.fetch.transport import Transport

MAX_BYTES = 500 * 1024
"""What is read of a robots.txt; RFC 9309, 2.5 wants at least so much."""

MAX_REDIRECTS = 5
"""RFC 9309, 2.3.1.2."""

KEPT_S = 24 * 3600.0
"""Seconds for which the rules hold; RFC 9309, 2.4 wants no more."""

KEPT, KEPT_LETTERS = 10_000, 2_000_000
"""Origins that are remembered, at about 1500 bytes each, and letters of their rules, at 25 bytes each."""

_OF_THE_HOST = {
    *(
        "dns_failed",
        "cannot_connect",
        "unknown_host",
        "bad_certificate",
        "forbidden_network",
        "rate_limited",
    )
}
"""Failures that would meet the picture as well: its request ends in the same state."""


@dataclass(frozen=True, slots=True)
class _Known:
    """What is known of an origin: its rules, None if all is allowed, or why nothing may be asked."""

    expires: float
    rules: Protego | None = None
    letters: int = 0
    failure: Answer | None = None


class Robots:
    """The rules of all origins that were asked.

    A failure is remembered for ``fetch.retry_wait_s`` only: the next attempt at a picture asks again.
    """

    def __init__(
        self,
        transport: Transport,
        config: FetchConfig,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._transport, self._config, self._clock = transport, config, clock
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self._delays: OrderedDict[str, float] = OrderedDict()
        self._letters = 0
        self._running: dict[str, asyncio.Task[_Known]] = {}

    async def refusal(self, target: Target) -> Answer | None:
        """Why an address may not be asked, None if it may."""
        origin = target.origin
        known = self._known.get(origin)
        if known is None or known.expires <= self._clock():
            known = await self._asked(origin, target.name)
        else:
            self._known.move_to_end(origin)
        if known.failure is not None:
            return known.failure
        if known.rules is None or known.rules.can_fetch(target.text, AGENT):
            return None
        return Answer("robots")

    def crawl_delay(self, name: str) -> float | None:
        """Seconds that a host, as ``name:port``, asks to leave between two requests; None if unknown."""
        return self._delays.get(name)

    async def close(self) -> None:
        """Stop what still runs."""
        tasks = [*self._running.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _asked(self, origin: str, name: str) -> _Known:
        """Ask, or wait for who asks already: one request at a time to one origin."""
        if (task := self._running.get(origin)) is None:
            task = self._running[origin] = asyncio.create_task(self._ask(origin, name))
            task.add_done_callback(lambda done: self._end(origin, done))
        return await asyncio.shield(task)

    def _end(self, origin: str, task: asyncio.Task[_Known]) -> None:
        del self._running[origin]
        if not task.cancelled():
            task.exception()  # looked at: whoever asked may have given up waiting

    async def _ask(self, origin: str, name: str) -> _Known:
        try:
            async with asyncio.timeout(self._config.timeout_s):
                found = await self._text(f"{origin}/robots.txt")
        except TimeoutError:
            found = Answer("robots_unreachable", "no whole robots.txt in time")
        if isinstance(found, Answer):
            known = _Known(self._clock() + self._config.retry_wait_s, failure=found)
        else:
            rules = Protego.parse(found)
            self._note_delay(name, rules.crawl_delay(AGENT))
            known = _Known(self._clock() + KEPT_S, rules if found.strip() else None, len(found))
        self._keep(origin, known)
        return known

    async def _text(self, address: str) -> str | Answer:
        """The text, "" where there is none; an Answer where it cannot be known."""
        for _ in range(MAX_REDIRECTS + 1):
            try:
                target = parse(address)
            except BadAddress:
                return Answer("robots_unreachable", "robots.txt leads to no address")
            found = await self._transport.ask(target, _read)
            if isinstance(found, Answer):
                if found.state in _OF_THE_HOST or found.state == "robots_unreachable":
                    return found
                return Answer("robots_unreachable", found.error)
            text, location = found
            if location is None:
                return text
            try:
                address = urljoin(target.text, location)
            except ValueError:
                return Answer("robots_unreachable", "robots.txt leads to no address")
        return ""  # RFC 9309, 2.3.1.2: as if there were none

    def _keep(self, origin: str, known: _Known) -> None:
        if (old := self._known.pop(origin, None)) is not None:
            self._letters -= old.letters
        self._known[origin] = known
        self._letters += known.letters
        while len(self._known) > KEPT or (self._letters > KEPT_LETTERS and len(self._known) > 1):
            _, dropped = self._known.popitem(last=False)
            self._letters -= dropped.letters

    def _note_delay(self, name: str, delay: float | None) -> None:
        self._delays.pop(name, None)
        if delay:
            self._delays[name] = delay
            if len(self._delays) > KEPT:
                self._delays.popitem(last=False)


async def _read(response: aiohttp.ClientResponse) -> tuple[str, str | None] | Answer:
    """The text and where it is instead, by the status (RFC 9309, 2.3.1)."""
    status = response.status
    if status in REDIRECTS and (location := response.headers.get("Location")):
        return "", location
    if status == 429:
        wait = retry_after_s(response.headers.get("Retry-After"))
        return Answer(
            "rate_limited", "asked for robots.txt", http_status=status, retry_after_s=wait
        )
    if 400 <= status < 500:
        return "", None
    if status != 200:
        wait = retry_after_s(response.headers.get("Retry-After")) if status == 503 else None
        return Answer(
            "robots_unreachable", f"status {status}", http_status=status, retry_after_s=wait
        )
    body = await bodies.read(response, MAX_BYTES, cut=True)
    return body.removeprefix(codecs.BOM_UTF8).decode("utf-8", "replace"), None
