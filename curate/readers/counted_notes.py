"""Notes of a streaming pass: what was found, how often, and the first example."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from curate.run.printable import one_line


class CountedNotes:
    """Keeps a source's list of notes up to date during one pass; make a new one for each pass.

    The list is changed in place, because the `Source` holds the same list.
    """

    def __init__(self, notes: list[str], fixed: Sequence[str] = ()) -> None:
        """Start with ``fixed``, the notes that were known before the pass."""
        self._notes = notes
        self._found: dict[str, list[Any]] = {}  # place in the list, count, first example
        notes[:] = fixed

    def add(self, what: str, example: str, count: int = 1) -> None:
        """Count ``what``; the first example is kept."""
        found = self._found.get(what)
        if found is None:
            found = self._found[what] = [len(self._notes), 0, one_line(example)]
            self._notes.append("")
        found[1] += count
        place, total, first = found
        self._notes[place] = f"{what}: {total}, such as {first}"
