"""What came of one address: the states in which a request can end, and `Answer`."""

from __future__ import annotations

from dataclasses import dataclass

from curate.measures.not_fetched import PERMANENT, STATES, STORED, TRANSIENT

__all__ = ["PERMANENT", "STATES", "STORED", "TRANSIENT", "Answer", "Request", "Way"]


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
        host: ``name:port`` of the last host that was to be asked, behind all redirects; "" if there was none.
        elsewhere: the address that a redirect leads to, which has to be asked next; "" for an end.
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
    host: str = ""
    elsewhere: str = ""

    @property
    def is_transient(self) -> bool:
        """Whether another attempt may end otherwise."""
        return self.state in TRANSIENT


@dataclass(frozen=True, slots=True)
class Way:
    """The redirects that led to an address within one attempt.

    Attributes:
        redirects: how many.
        status: of the last one, 0 without any.
        seconds: that they took together, without what was waited for between them.
    """

    redirects: int = 0
    status: int = 0
    seconds: float = 0.0

    def and_then(self, answer: Answer) -> Way:
        """With one more redirect."""
        return Way(self.redirects + 1, answer.http_status, self.seconds + answer.seconds)


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
