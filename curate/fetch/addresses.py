"""Which network addresses may be connected to: those of the public internet, and what is allowed besides."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from functools import lru_cache

from curate.fetch.config import FetchConfig

_NOT_PUBLIC_4 = tuple(
    ipaddress.IPv4Network(network)
    for network in (
        "0.0.0.0/8",  # this network (RFC 791)
        "10.0.0.0/8",  # private (RFC 1918)
        "100.64.0.0/10",  # shared by customers of a provider (RFC 6598); 100.100.100.200 is Alibaba's metadata
        "127.0.0.0/8",  # loopback (RFC 1122)
        "168.63.129.16/32",  # Azure's metadata, in a public network
        "169.254.0.0/16",  # link-local (RFC 3927); 169.254.169.254 is the metadata of most clouds
        "172.16.0.0/12",  # private (RFC 1918)
        "192.0.0.0/24",  # protocol assignments (RFC 6890); 192.0.0.192 is Oracle's metadata
        "192.0.2.0/24",  # documentation (RFC 5737)
        "192.88.99.0/24",  # relays of 6to4, withdrawn (RFC 7526)
        "192.168.0.0/16",  # private (RFC 1918)
        "198.18.0.0/15",  # benchmarks (RFC 2544)
        "198.51.100.0/24",  # documentation (RFC 5737)
        "203.0.113.0/24",  # documentation (RFC 5737)
        "224.0.0.0/4",  # multicast (RFC 5771)
        "240.0.0.0/4",  # reserved (RFC 1112), and broadcast
    )
)
_UNICAST_6 = ipaddress.IPv6Network("2000::/3")
"""All that is assigned to unicast (RFC 4291): not loopback, unspecified, IPv4-mapped and -compatible, NAT64
(RFC 6052, RFC 8215), unique local with the metadata of AWS, link-local, site-local, multicast."""
_NOT_PUBLIC_6 = tuple(
    ipaddress.IPv6Network(network)
    for network in (
        "2001::/23",  # protocol assignments (RFC 2928): Teredo, benchmarks, ORCHID
        "2001:db8::/32",  # documentation (RFC 3849)
        "2002::/16",  # 6to4 (RFC 3056), which holds any IPv4 address
        "3fff::/20",  # documentation (RFC 9637)
    )
)
_REMEMBERED = 4096  # verdicts, for a host is connected to many times


class Guard:
    """Judges addresses by ``fetch.allow_hosts`` and ``fetch.allow_networks``."""

    def __init__(self, config: FetchConfig) -> None:
        self._hosts = frozenset(_plain(name) for name in config.allow_hosts)
        self._networks = [ipaddress.ip_network(text) for text in config.allow_networks]
        self.is_allowed = lru_cache(_REMEMBERED)(self._is_allowed)

    def is_exempt(self, host: str, port: int) -> bool:
        """Whether a host is named in ``fetch.allow_hosts``, alone or with this port.

        Args:
            host: a name, or an address without brackets.
            port: of the request.
        """
        name = _plain(host)
        return bool(self._hosts) and (name in self._hosts or f"{name}:{port}" in self._hosts)

    def _is_allowed(self, address: str) -> bool:
        """Whether a connection to ``address`` may be opened: it is public, or in an allowed network."""
        try:
            parsed = ipaddress.ip_address(address)
        except ValueError:
            return False
        return is_public(parsed) or _is_in(parsed, self._networks)


def is_public(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """Whether an address is unicast on the public internet, by the registries of special addresses of IANA.

    An IPv6 address that holds an IPv4 address (mapped, NAT64, 6to4, Teredo) is not, whatever it holds, nor
    is one with a zone.

    >>> [is_public(ipaddress.ip_address(text)) for text in ("1.1.1.1", "10.1.1.1", "::ffff:1.1.1.1")]
    [True, False, False]
    """
    if isinstance(address, ipaddress.IPv4Address):
        return not _is_in(address, _NOT_PUBLIC_4)
    return address.scope_id is None and address in _UNICAST_6 and not _is_in(address, _NOT_PUBLIC_6)


def _is_in(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
    networks: Iterable[ipaddress.IPv4Network | ipaddress.IPv6Network],
) -> bool:
    return any(address in network for network in networks)


def _plain(name: str) -> str:
    """A host as it is compared: lower case, without brackets or the dot of the root."""
    return name.lower().replace("[", "").replace("]", "").rstrip(".")
