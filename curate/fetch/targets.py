"""An address as a request needs it: taken apart, written as it is sent, and refused if it is none of the web's."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import quote

from yarl import URL

_UNDECODED = "\ufffd"  # what a reader puts where bytes are no text
_SENT_AS_WRITTEN = re.compile(r"[!-~]+")
_PARTS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://([^/?#\\]*)(.*)", re.DOTALL)
_BRACKETS = re.compile(r"[^/?#]*//[^/?#]*[\[\]]")
_IN_BRACKETS = re.compile(r"[^/?#]*//\[[0-9A-Fa-f:.]+\](?::[0-9]*)?(?:[/?#]|$)", re.ASCII)
_OTHER = re.compile(r"[^!-~]+")
_PLAIN_IPV4 = re.compile(r"(?:(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)(?:\.(?!$)|$)){4}", re.ASCII)
_ENDS_IN_NUMBER = re.compile(r"(?:^|\.)(?:\d+|0[xX][0-9a-fA-F]*)\.?$", re.ASCII)
_AROUND = "".join(
    map(chr, range(0x21))
)  # control characters and the space, as the URL Standard strips them

_PORTS_OF_OTHERS = """
0 1 7 9 11 13 15 17 19 20 21 22 23 25 37 42 43 53 69 77 79 87 95 101 102 103 104 109 110 111 113 115 117 119
123 135 137 139 143 161 179 389 427 465 512 513 514 515 526 530 531 532 540 548 554 556 563 587 601 636 989
990 993 995 1719 1720 1723 2049 3659 4045 4190 5060 5061 6000 6566 6665 6666 6667 6668 6669 6679 6697 10080
"""
BAD_PORTS = frozenset(map(int, _PORTS_OF_OTHERS.split()))
"""Ports of other services, to which browsers send no HTTP either (Fetch Standard, "port blocking")."""


class BadAddress(ValueError):
    """No address that may be asked; the message says why, in few words that are equal for equal faults."""


@dataclass(frozen=True, slots=True)
class Target:
    """An address of http or https.

    Attributes:
        text: as it is sent, ASCII without spaces and without a fragment.
        url: the same for aiohttp, which changes nothing of it.
        host: lower case, without brackets, as in DNS.
        port: given, or the scheme's.
    """

    text: str
    url: URL
    host: str
    port: int

    @property
    def name(self) -> str:
        """``host:port``, the unit of limits and rates."""
        return f"{self.host.rstrip('.')}:{self.port}"

    @property
    def is_ip(self) -> bool:
        """Whether the host is an IP address, not a name."""
        return ":" in self.host or _PLAIN_IPV4.fullmatch(self.host) is not None

    @property
    def origin(self) -> str:
        """Scheme, host and port: the unit of robots.txt (RFC 9309, 2.3)."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.url.scheme}://{host}:{self.port}"


def parse(text: str) -> Target:
    """An address of a table or of a redirect.

    What is ASCII without spaces is sent byte for byte: servers compare addresses as they are written. All
    else is quoted once, and a name in other letters becomes its form in DNS.

    Raises:
        BadAddress: it is not of http or https, was not decoded, has no host, a user or password in it, a port of another
            service, or an IP address in a spelling that programs read differently.
    """
    text = text.strip(_AROUND).partition("#")[0]
    if _UNDECODED in text:  # quoted, it would be the address of something else
        raise BadAddress("a character that could not be decoded; type dataset.encoding=NAME")
    try:
        if not _SENT_AS_WRITTEN.fullmatch(text):
            text = _quoted(text)
        if _BRACKETS.match(text) and not _IN_BRACKETS.match(text):
            raise BadAddress("an address that cannot be read")  # programs read it differently
        url = URL(text, encoded=True)
        scheme, host, port = url.scheme, url.raw_host, url.port
    except ValueError as error:
        raise BadAddress("an address that cannot be read") from error
    if scheme not in ("http", "https"):
        raise BadAddress("no address of http or https")
    if not host or port is None:
        raise BadAddress("an address without a host")
    if url.raw_user is not None or url.raw_password is not None:
        raise BadAddress("an address with a user or a password")
    if port in BAD_PORTS:
        raise BadAddress("a port of another service")
    if ":" not in host and _ENDS_IN_NUMBER.search(host) and not _PLAIN_IPV4.fullmatch(host):
        raise BadAddress("an IP address in an odd spelling")
    return Target(text, url, host.lower(), port)


def in_dns(host: str) -> str:
    """A host in the letters of DNS.

    >>> in_dns("bücher.example")
    'xn--bcher-kva.example'

    Raises:
        ValueError: no name can be so.
    """
    return URL.build(scheme="http", host=host).raw_host or ""


def _quoted(text: str) -> str:
    """The address in ASCII.

    Bytes that a header held, and Python made lone surrogates of, become the bytes again.

    Raises:
        ValueError: it cannot be.
    """
    found = _PARTS.fullmatch(text)
    if found is None:
        raise BadAddress("no address of http or https")
    scheme, authority, rest = found.groups()
    if not authority.isascii():
        name, colon, port = authority.partition(":")
        if "@" in authority:
            raise BadAddress("an address with a user or a password")
        authority = f"{in_dns(name)}{colon}{port}"
    if not _SENT_AS_WRITTEN.fullmatch(authority):
        raise BadAddress("an address that cannot be read")
    rest = _OTHER.sub(lambda odd: quote(odd[0], safe="", errors="surrogateescape"), rest)
    return f"{scheme}://{authority}{rest}"
