"""Which tasks of a pass wait, and how often each was begun, where workers are processes that may end by themselves."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from curate.run.engine.tasks import ATTEMPTS, Result


@dataclass
class Attempts:
    """The tasks of a pass, known by their places in the list.

    Attributes:
        tasks: all of them.
        waiting: places, the next one first.
        begun: how often each was begun, by place, of those that have no result yet.
        ended_unbuilt: workers in a row that ended before they were built.
    """

    tasks: Sequence[Any]
    waiting: deque[int] = field(init=False)
    begun: dict[int, int] = field(default_factory=dict)
    ended_unbuilt: int = 0

    def __post_init__(self) -> None:
        self.waiting = deque(range(len(self.tasks)))

    def begin(self) -> int:
        """The next place, whose task is begun."""
        place = self.waiting.popleft()
        self.begun[place] = self.begun.get(place, 0) + 1
        return place

    def take_back(self, place: int) -> None:
        """A task that was begun did not reach its worker: it waits again, before all others, and nothing was tried."""
        self.begun[place] -= 1
        self.waiting.appendleft(place)

    def done(self, place: int, value: Any) -> Result:
        """The result of a task that was carried out."""
        return Result(self.tasks[place], value, attempts=self.begun.pop(place))

    def failed(self, place: int, error: str, refusal: bool = False) -> Result | None:
        """The result of a task that failed once more; None where it is tried again, before all others."""
        if refusal or self.begun[place] >= ATTEMPTS:
            attempts = self.begun.pop(place)
            return Result(self.tasks[place], error=error, attempts=attempts, refusal=refusal)
        self.waiting.appendleft(place)
        return None

    def worker_ended(self, place: int | None, is_built: bool, how: str) -> Result | None:
        """What becomes of the task of a worker that ended by itself; no other task is charged.

        Args:
            place: of its task; None where it had none.
            is_built: whether it had been built.
            how: it ended, such as "by SIGKILL".

        Raises:
            RuntimeError: ``ATTEMPTS`` workers in a row ended before they were built.
        """
        self.ended_unbuilt = 0 if is_built else self.ended_unbuilt + 1
        if self.ended_unbuilt >= ATTEMPTS:
            raise RuntimeError(
                f"{self.ended_unbuilt} workers in a row ended before they were built, the last {how}"
            )
        return None if place is None else self.failed(place, f"its process ended {how}")
