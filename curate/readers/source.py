"""What every reader returns: a data set that can be passed over again and again, and its images' bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from curate.readers.sample import Candidate


@dataclass
class Source:
    """A data set, read as a stream as often as needed, and its images, fetched in any order.

    Attributes:
        candidates: a new pass over all images, in a fixed order, without opening one.
        load: the encoded image at a candidate's ``location``; raises ``images.UnreadableImage``
            where there is none, and is called from several threads.
        total: how many candidates there are, where that is known without a pass.
        notes: what the user should know; complete when a pass has ended, and the same after each.
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
