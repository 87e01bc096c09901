"""The typed schema of the keys ``fetch.*``, with the range of every value."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field

from curate.run.schema import PATH, UserError, check

MOST_PIXELS = 89_478_485
"""``curate.measures.decode.MAX_PIXELS``: of a larger picture not even the header is taken."""

_CONTACT = re.compile(r"[^\s@()<>]+@[^\s@()<>]+\.[^\s@()<>]+|https?://[^\s()<>]+")


@dataclass
class FetchConfig:
    """How the pictures of a table's addresses are fetched.

    Attributes:
        enabled: nothing is fetched without it.
        contact: an e-mail address or web page of whoever fetches, for the User-Agent.
        connections: requests at one time.
        host_connections: requests at one time to one host.
        host_rate: requests a second to one host, null for no limit.
        timeout_s: for one attempt as a whole, redirects included, without the wait for a host's turn.
        connect_s, stall_s: for a name and then for a connection; without a byte.
        retries: further attempts where the failure may pass.
        retry_wait_s: before the second attempt; doubled, with jitter, before each further one.
        max_wait_s: the longest ``Retry-After`` or ``Crawl-delay`` of a host that is waited for.
        max_mb: bytes of a picture, unpacked, in 10^6.
        max_pixels: width times height of a picture, `MOST_PIXELS` at most.
        max_redirects: from one address.
        robots: whether robots.txt is asked for and obeyed.
        opt_out_hosts, opt_out_urls, opt_out_hashes: files with one entry a line that are never fetched or
            kept: hosts with all below them, addresses, md5 or sha256 of pictures.
        verify: whether a picture must have the md5 or sha256 that the table gives.
        hashes: a file of ``url``, ``sha256`` and ``md5`` between tabs, as CC12M publishes it.
        rows_per_shard: rows of the table for each shard.
        allow_hosts, allow_networks: exceptions for an intranet, by name or by CIDR.
    """

    enabled: bool = False
    contact: str | None = None
    connections: int = 64
    host_connections: int = 8
    host_rate: float | None = 20.0
    timeout_s: float = 30.0
    connect_s: float = 10.0
    stall_s: float = 10.0
    retries: int = 2
    retry_wait_s: float = 1.0
    max_wait_s: float = 120.0
    max_mb: float = 32.0
    max_pixels: int = MOST_PIXELS
    max_redirects: int = 5
    robots: bool = True
    opt_out_hosts: str | None = field(default=None, metadata=PATH)
    opt_out_urls: str | None = field(default=None, metadata=PATH)
    opt_out_hashes: str | None = field(default=None, metadata=PATH)
    verify: bool = True
    hashes: str | None = field(default=None, metadata=PATH)
    rows_per_shard: int = 10_000
    allow_hosts: list[str] = field(default_factory=list)
    allow_networks: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        for name in ("connections", "host_connections", "rows_per_shard", "max_pixels"):
            check(getattr(self, name) > 0, f"fetch.{name}", getattr(self, name), "> 0")
        if self.max_pixels > MOST_PIXELS:
            raise UserError(
                f"fetch.max_pixels={self.max_pixels} is more than is read of any picture; type "
                f"fetch.max_pixels={MOST_PIXELS} or fewer"
            )
        for name in ("timeout_s", "connect_s", "stall_s", "retry_wait_s", "max_mb"):
            check(getattr(self, name) > 0, f"fetch.{name}", getattr(self, name), "> 0")
        for name in ("retries", "max_redirects", "max_wait_s"):
            check(getattr(self, name) >= 0, f"fetch.{name}", getattr(self, name), ">= 0")
        rate = self.host_rate
        check(rate is None or rate > 0, "fetch.host_rate", rate, "null or > 0")
        for text in self.allow_networks:
            try:
                ipaddress.ip_network(text)
            except ValueError as error:
                raise UserError(
                    f"fetch.allow_networks has {text!r}, which is no network ({error}); type, for "
                    "instance, fetch.allow_networks=[10.0.0.0/8]"
                ) from error
        if self.contact is not None and not _CONTACT.fullmatch(self.contact):
            raise UserError(
                f"fetch.contact={self.contact!r} is neither an e-mail address nor a web page; the hosts' "
                "owners write there if something is wrong. Type fetch.contact=you@example.org"
            )
        if self.enabled and self.contact is None:
            raise UserError(
                "fetch.enabled=true asks other people's servers for pictures, and fetch.contact is not set: "
                "they must be able to reach you. Type fetch.contact=you@example.org"
            )
