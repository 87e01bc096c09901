"""What came of one address: the states in which a request can end, and `Answer`."""

from __future__ import annotations

from dataclasses import dataclass

STORED = "stored"

TRANSIENT = {
    "dns_failed": "the name server did not answer",
    "cannot_connect": "no connection to the host",
    "timeout": "no whole answer in time",
    "cut_short": "the connection ended within the answer",
    "rate_limited": "the host asks for fewer requests (429)",
    "server_error": "an error of the server (5xx)",
    "host_down": "the host failed several times in a row, so it was not asked again",
    "robots_unreachable": "robots.txt of the host cannot be read, so nothing else may be",
}
"""States that may be otherwise an hour later, each with what a report says of it: asked again."""

PERMANENT = {
    "bad_address": "no address of http or https",
    "opted_out": "in a list of those who opted out",
    "robots": "robots.txt forbids it",
    "reserved": "the host's headers forbid it (X-Robots-Tag, tdm-reservation)",
    "forbidden_network": "the host is in a private or reserved network",
    "unknown_host": "there is no host of this name",
    "bad_certificate": "TLS could not be verified",
    "redirects": "too many redirects, or one that leads nowhere",
    "not_found": "nothing is there (404, 410)",
    "refused": "the host refuses (401, 403, 451)",
    "bad_answer": "an answer that is not sound HTTP, or of another status",
    "too_large": "more bytes than fetch.max_mb",
    "too_many_pixels": "more pixels than fetch.max_pixels",
    "not_a_picture": "something else than a picture, such as a page of HTML",
    "damaged": "a picture that is cut short or cannot be read",
    "changed": "another picture than the data set's hash says",
}
"""States that stay: not asked again."""

STATES = {STORED: "stored", **TRANSIENT, **PERMANENT}
"""Every state, with what a report says of it. A request ends in exactly one."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of one attempt at an address.

    Attributes:
        state: one of ``STATES``.
        error: what exactly was wrong, in a few words that name no byte counts or times, so that equal
            faults read the same; "" for a stored picture.
        body: the picture's bytes as they came, b"" unless stored.
        extension: of the picture by its first bytes, such as ``jpg``.
        width, height: pixels when upright, from the header.
        http_status: of the last answer, 0 if there was none.
        retry_after_s: how long the host asks to be left alone; None if it does not.
        seconds: how long the attempt took.
    """

    state: str
    error: str = ""
    body: bytes = b""
    extension: str = ""
    width: int = 0
    height: int = 0
    http_status: int = 0
    retry_after_s: float | None = None
    seconds: float = 0.0

    @property
    def is_transient(self) -> bool:
        """Whether another attempt may end otherwise."""
        return self.state in TRANSIENT


@dataclass(frozen=True, slots=True)
class Request:
    """One row of the table.

    Attributes:
        shard, index: where its sample belongs: the row's number, cut into shards.
        url: as the table has it.
        caption: the first caption, for img2dataset's files.
        row: the row's identity, see ``curate.readers.tables.row_identity``.
        md5, sha256: of the picture as the data set's authors saw it, lower-case hex, "" if unknown.
    """

    shard: int
    index: int
    url: str
    caption: str = ""
    row: str = ""
    md5: str = ""
    sha256: str = ""
