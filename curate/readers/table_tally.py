"""Counts what a pass over a data set met, with the first example of each."""

from __future__ import annotations


class Tally:
    """How often each thing happened; its notes are the same for the same pass."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._examples: dict[str, str] = {}

    def count(self, what: str, example: str) -> None:
        """One more of ``what``."""
        self._counts[what] = self._counts.get(what, 0) + 1
        self._examples.setdefault(what, example)

    def notes(self) -> list[str]:
        """One sentence each, in the order of their first occurrence."""
        return [
            f"{what}: {count}, such as {self._examples[what]}"
            for what, count in self._counts.items()
        ]
