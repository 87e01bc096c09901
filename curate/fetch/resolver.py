"""Names to checked addresses, and the check of the address that a socket is opened for.

What is checked is what is connected to: aiohttp gets only addresses that passed, opens its sockets for
these, and asks once more for each socket. An answer of the name server that changes meanwhile changes
nothing.
"""

from __future__ import annotations

import socket
import time
from collections import OrderedDict
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from aiohttp.abc import AbstractResolver, ResolveResult

from curate.fetch.addresses import Guard
from curate.fetch.lookups import Lookup, Lookups, TooLate, system_lookup

KEPT_S, UNKNOWN_KEPT_S, FAILED_KEPT_S = 300.0, 60.0, 1.0
"""Seconds for which an address, the absence of a host, a failure of the name server is remembered:
``getaddrinfo`` does not say for how long an answer holds."""

KEPT = 20_000
"""Names that are remembered, at about 500 bytes each."""

_UNKNOWN = (socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME))


class ForbiddenNetwork(OSError):
    """All addresses of a host are in networks that may not be connected to."""


class UnknownHost(OSError):
    """The name server says that there is no host of this name."""


class NameServerFailed(OSError):
    """The name server did not answer, or not with an answer."""


@dataclass(slots=True)
class Hop:
    """What is known of the request that a connection is opened for.

    Attributes:
        is_exempt: its host is named in ``fetch.allow_hosts``.
        is_resolving: its host's name is being looked up.
        is_forbidden: a socket was refused for its address.
        status: of the last answer of the attempt, 0 until there is one.
    """

    is_exempt: bool = False
    is_resolving: bool = False
    is_forbidden: bool = False
    status: int = 0


HOP: ContextVar[Hop | None] = ContextVar("hop", default=None)
"""Of the request in whose task a connection is opened: aiohttp hands the address alone to `checked_socket`."""


class Resolver(AbstractResolver):
    """aiohttp's resolver that gives only addresses which may be connected to."""

    def __init__(
        self,
        guard: Guard,
        lookup: Lookup = system_lookup,
        clock: Callable[[], float] = time.monotonic,
        limit_s: float = 10.0,
    ) -> None:
        """Ask nothing yet.

        Args:
            guard: which addresses are permitted.
            lookup: a host's name to its addresses, blocking.
            clock: seconds that only grow.
            limit_s: how long a lookup may take, without the time in which it waits for others.
        """
        self._guard, self._clock, self._limit_s = guard, clock, limit_s
        self._lookups = Lookups(lookup, self._ended)
        self._known: OrderedDict[str, tuple[float, list[str] | OSError]] = OrderedDict()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """The permitted addresses of a host.

        Raises:
            ForbiddenNetwork: it has others only.
            UnknownHost: there is no such host.
            NameServerFailed: it cannot be said whether there is.
        """
        addresses = await self.addresses(host)
        if not self._guard.is_exempt(host, port):
            addresses = [address for address in addresses if self._guard.is_allowed(address)]
        if not addresses:
            raise ForbiddenNetwork
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=socket.IPPROTO_TCP,
                flags=socket.AI_NUMERICHOST,
            )
            for address in addresses
        ]

    async def addresses(self, host: str) -> list[str]:
        """All addresses of a host, permitted or not, remembered.

        Raises:
            UnknownHost, NameServerFailed: see `resolve`.
        """
        if (known := self._known.get(host)) is not None and known[0] > self._clock():
            self._known.move_to_end(host)
            if isinstance(known[1], OSError):
                raise type(
                    known[1]
                )  # a new one: a raised error keeps its traceback, and that its frames
            return known[1]
        hop = HOP.get() or Hop()
        hop.is_resolving = True
        try:
            addresses = await self._lookups.addresses(host, self._limit_s)
        except TooLate:
            raise NameServerFailed("no answer within fetch.connect_s") from None
        except (socket.gaierror, UnicodeError) as error:
            raise (UnknownHost if _is_unknown(error) else NameServerFailed) from None
        hop.is_resolving = False
        return addresses

    def _ended(self, host: str, found: list[str] | Exception) -> None:
        if isinstance(found, list):
            self._remember(host, found, KEPT_S)
        elif _is_unknown(found):
            self._remember(host, UnknownHost(), UNKNOWN_KEPT_S)
        else:
            self._remember(host, NameServerFailed(), FAILED_KEPT_S)

    def _remember(self, host: str, what: list[str] | OSError, seconds: float) -> None:
        self._known[host] = (self._clock() + seconds, what)
        self._known.move_to_end(host)
        if len(self._known) > KEPT:
            self._known.popitem(last=False)

    async def close(self) -> None:
        """Look nothing up any more; what hangs is left to end by itself."""
        self._lookups.close()


def _is_unknown(error: Exception) -> bool:
    """Whether a lookup says that there is no such host; UnicodeError is of a label that no name can have."""
    return isinstance(error, UnicodeError) or getattr(error, "errno", None) in _UNKNOWN


def checked_socket(guard: Guard) -> Callable[[Any], socket.socket]:
    """aiohttp's ``socket_factory``: a socket for an address that may be connected to.

    An address in the URL itself, however it is written, does not pass the resolver, but it passes here.
    """

    def create(address_info: Any) -> socket.socket:
        family, kind, protocol, _, sockaddr = address_info
        hop = HOP.get() or Hop()
        if not hop.is_exempt and not guard.is_allowed(str(sockaddr[0])):
            hop.is_forbidden = True
            raise ForbiddenNetwork
        return socket.socket(family, kind, protocol)

    return create
