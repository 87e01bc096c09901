"""Notes of a streaming pass: what was found, how often, and the first example."""

from __future__ import annotations

from collections.abc import Sequence

from curate.run.printable import one_line


class CountedNotes:
    """Keeps a source's list of notes up to date during one pass; make a new one for each pass.

    The list is changed in place, because the `Source` holds the same list.
    """

    def __init__(self, notes: list[str], fixed: Sequence[str] = ()) -> None:
        """Start with ``fixed``, the notes that were known before the pass."""
        self._notes = notes
        self._places: dict[str, int] = {}
        self._found: dict[str, tuple[int, str]] = {}
        notes[:] = fixed

    def add(self, what: str, example: str, count: int = 1) -> None:
        """Count ``what``; the first example is kept."""
        if what not in self._found:
            self._places[what] = len(self._notes)
            self._notes.append("")
        so_far, first = self._found.get(what, (0, example))
        self._found[what] = (so_far + count, first)
        self._notes[self._places[what]] = f"{what}: {so_far + count}, such as {one_line(first)}"
