"""Notes that a streaming pass writes as it goes: what was met, how often, and the first example."""

from __future__ import annotations

from collections.abc import Sequence


class Tally:
    """Keeps a source's ``notes`` up to date during one pass; a new pass begins a new tally.

    The list itself stays the same object, since whoever holds the source holds it.
    """

    def __init__(self, notes: list[str], lasting: Sequence[str] = ()) -> None:
        """``lasting`` are the notes that were known before the pass."""
        self._notes = notes
        self._places: dict[str, int] = {}
        self._found: dict[str, tuple[int, str]] = {}
        notes[:] = lasting

    def add(self, what: str, example: str, count: int = 1) -> None:
        """Count ``what``; the first example is kept."""
        if what not in self._found:
            self._places[what] = len(self._notes)
            self._notes.append("")
        so_far, first = self._found.get(what, (0, example))
        self._found[what] = (so_far + count, first)
        self._notes[self._places[what]] = f"{what}: {so_far + count}, such as {first}"
