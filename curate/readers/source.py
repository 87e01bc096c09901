"""`Source`, what every reader returns: a data set to stream as often as needed, and its images' bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from curate.readers.candidate import Candidate


@dataclass
class Source:
    """A data set whose candidates are streamed and whose images are loaded in any order.

    Attributes:
        candidates: starts a new pass over all candidates, in a fixed order, without opening an image.
        load: the encoded image at a candidate's ``location``; raises ``unreadable.UnreadableImage``
            where there is none, and is called from several threads. It can be pickled, for several processes, once
            a pass is complete.
        total: the number of candidates, None if unknown before a pass.
        notes: what the user should know; complete after a pass, and the same after each.
    """

    candidates: Callable[[], Iterator[Candidate]]
    load: Callable[[str], bytes]
    total: int | None = None
    notes: list[str] = field(default_factory=list)

    @classmethod
    def of(
        cls,
        candidates: list[Candidate],
        load: Callable[[str], bytes],
        notes: list[str] | None = None,
    ) -> Source:
        """A source whose candidates fit into memory."""
        return cls(lambda: iter(candidates), load, len(candidates), notes or [])
