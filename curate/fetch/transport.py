"""One request through every guard of the connection; a failure becomes the state that it ends in."""

from __future__ import annotations

import errno
import os
import resource
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import replace
from importlib.metadata import version
from typing import TypeVar

import aiohttp

from curate.fetch.addresses import Guard
from curate.fetch.answer import Answer
from curate.fetch.bodies import BadBody
from curate.fetch.config import FetchConfig
from curate.fetch.lookups import Lookup, system_lookup
from curate.fetch.resolver import (
    HOP,
    ForbiddenNetwork,
    Hop,
    NameServerFailed,
    Resolver,
    UnknownHost,
    checked_socket,
)
from curate.fetch.targets import Target
from curate.run.schema import UserError

KEEP_ALIVE_S = 2.0
"""Seconds for which a connection without a request stays open: every host of the last seconds costs a file."""

MAX_FILES = 8192
"""Open files that the process allows itself if it may: many systems begin with 1024."""

MAX_LINE, MAX_HEADERS = 8190, 128
"""Bytes of the status line and of one header, and headers of one answer: aiohttp's own defaults."""

_T = TypeVar("_T")
_NO_FILES = (errno.EMFILE, errno.ENFILE)


class Transport:
    """A session that sends no cookies, follows no redirects, asks no proxy and unpacks nothing by itself."""

    def __init__(
        self,
        config: FetchConfig,
        lookup: Lookup | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """Open the session, inside a running loop.

        Args:
            config: limits and exceptions.
            lookup: in place of the system's, for tests.
            tls: what certificates are verified against, in place of the system's authorities.
        """
        _allow_files()
        self._guard = Guard(config)
        self._resolver = Resolver(self._guard, lookup or system_lookup, limit_s=config.connect_s)
        connector = aiohttp.TCPConnector(
            limit=0,  # the scheduler counts
            resolver=self._resolver,
            use_dns_cache=False,  # the resolver remembers, and must see the port of each request
            socket_factory=checked_socket(self._guard),
            keepalive_timeout=KEEP_ALIVE_S,
            ssl=True if tls is None else tls,
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={
                "User-Agent": user_agent(config),
                "Accept": "image/*,*/*;q=0.5",
                "Accept-Encoding": "identity",
            },
            timeout=aiohttp.ClientTimeout(
                total=None, connect=config.connect_s, sock_read=config.stall_s
            ),
            auto_decompress=False,
            trust_env=False,
            max_line_size=MAX_LINE,
            max_field_size=MAX_LINE,
            max_headers=MAX_HEADERS,
        )

    async def ask(
        self,
        target: Target,
        read: Callable[[aiohttp.ClientResponse], Awaitable[_T]],
        status: int = 0,
    ) -> _T | Answer:
        """What ``read`` makes of the answer to a GET, or the state in which the request failed.

        What ``read`` leaves of the body is not waited for: the connection is closed then.

        Args:
            target: what is asked for.
            read: takes what comes.
            status: of the redirect that led here, which is the last answer until another comes.

        Raises:
            TimeoutError: of the caller's own limit.
            UserError: no more files may be opened.
        """
        if (failure := await self.look_up(target, status)) is not None:
            return failure
        HOP.set(hop := Hop(self._guard.is_exempt(target.host, target.port), status=status))
        try:
            async with self._session.get(target.url, allow_redirects=False) as response:
                hop.status = response.status
                return await read(response)
        except BadBody as error:
            answer = error.answer
        except (aiohttp.ClientError, OSError, ValueError) as error:
            answer = _failure(error, hop)
        return replace(answer, http_status=hop.status)

    async def look_up(self, target: Target, status: int = 0) -> Answer | None:
        """Look up the name of a host, None if it has addresses; permitted or not, `ask` says.

        Before the connection, because ``fetch.connect_s`` must not count while the lookup waits for others.
        """
        if target.is_ip:
            return None
        HOP.set(Hop(status=status))
        try:
            await self._resolver.addresses(target.host)
        except OSError as error:
            return replace(_unconnected(error), http_status=status)
        return None

    async def close(self) -> None:
        """Close all connections."""
        await self._session.close()
        await self._resolver.close()


def _allow_files() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < MAX_FILES:
        most = MAX_FILES if hard == resource.RLIM_INFINITY else min(MAX_FILES, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))


def user_agent(config: FetchConfig) -> str:
    """Who asks, and where to write to."""
    contact = f" (+{config.contact})" if config.contact else ""
    return f"Darkroom/{version('darkroom')}{contact}"


def _failure(error: Exception, hop: Hop) -> Answer:
    """The state of a request that brought no answer, or only a part of one.

    Raises:
        TimeoutError, UserError: see ``Transport.ask``.
    """
    if hop.is_forbidden:
        return Answer("forbidden_network")
    if isinstance(error, aiohttp.ClientConnectorError):
        return _unconnected(error.os_error)
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        state = "dns_failed" if hop.is_resolving else "cannot_connect"
        return Answer(state, "no answer within fetch.connect_s")
    if isinstance(error, aiohttp.ServerTimeoutError):
        return Answer("timeout", "nothing came within fetch.stall_s")
    if isinstance(error, TimeoutError):
        raise error
    if isinstance(error, aiohttp.ClientPayloadError):
        return Answer("cut_short", "the body is not whole")
    if isinstance(error, aiohttp.ClientConnectionError | OSError):
        return Answer("cut_short", _words(error) or "closed without an answer")
    if isinstance(error, aiohttp.InvalidURL):
        return Answer("bad_address", "an address that cannot be asked")
    return Answer("bad_answer", "no sound HTTP, or headers that are too large")


def _unconnected(cause: OSError) -> Answer:
    if isinstance(cause, ForbiddenNetwork):
        return Answer("forbidden_network")
    if isinstance(cause, UnknownHost):
        return Answer("unknown_host")
    if isinstance(cause, NameServerFailed):
        return Answer("dns_failed", str(cause))
    if isinstance(cause, ssl.SSLCertVerificationError):
        is_of_another = "mismatch" in cause.verify_message
        words = "a certificate of another host" if is_of_another else cause.verify_message
        return Answer("bad_certificate", words)
    if isinstance(cause, ssl.SSLError) and not isinstance(cause, ssl.SSLEOFError):
        return Answer("bad_certificate", (cause.reason or "").replace("_", " ").lower())
    if cause.errno in _NO_FILES:
        raise UserError(
            "the system lets this process open no more files, and each connection is one; type ulimit -n 8192 "
            "before the command, or a smaller fetch.connections"
        ) from cause
    return Answer("cannot_connect", _words(cause))


def _words(error: BaseException) -> str:
    """The system's words for an error, without the address that asyncio adds; "" for an error of no number."""
    number = getattr(error, "errno", None)
    return os.strerror(number).lower() if isinstance(number, int) and number > 0 else ""
