"""How much memory the bodies of all requests under way may take together."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable

EACH = 1_000_000
"""Bytes that each body may have without asking: nearly all pictures of the web are smaller."""

ALL = 128_000_000
"""Bytes of the larger ones, by the length that they announce, or else by ``fetch.max_mb``."""


class Room:
    """Room for the larger bodies; who asks first is served first."""

    def __init__(self, size: int = ALL, clock: Callable[[], float] = time.monotonic) -> None:
        self.size, self.clock = size, clock
        self._free = size
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    def take_at_once(self, count: int) -> bool:
        """Take room if there is enough and nobody waits for it."""
        if self._waiting or count > self._free:
            return False
        self._free -= count
        return True

    async def wait(self, count: int) -> None:
        """Take room when there is enough."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((count, future))
        try:
            await future
        except asyncio.CancelledError:
            if future.cancelled():
                self._waiting.remove((count, future))
                self.give(0)  # those behind may need less
            else:
                self.give(count)
            raise

    def give(self, count: int) -> None:
        """Give room back."""
        self._free += count
        while self._waiting and self._waiting[0][0] <= self._free:
            wanted, future = self._waiting.popleft()
            self._free -= wanted
            future.set_result(None)


class Part:
    """The room of one body, taken once at most, so that nobody who holds some waits for more.

    Attributes:
        waited_s: for room; that no host is to blame for.
        limit: of the time for the attempt, which stands still meanwhile.
    """

    def __init__(self, room: Room) -> None:
        self._room, self._taken = room, 0
        self.waited_s = 0.0
        self.limit: asyncio.Timeout | None = None

    def __enter__(self) -> Part:
        return self

    def __exit__(self, *_: object) -> None:
        self._room.give(self._taken)

    async def need(self, count: int) -> None:
        """Wait until the body may take so many bytes; once it has some it has enough."""
        if self._taken:
            return
        count = min(count, self._room.size)
        if not self._room.take_at_once(count):
            await self._wait(count)
        self._taken = count

    async def _wait(self, count: int) -> None:
        until = self.limit.when() if self.limit else None
        started = self._room.clock()
        if self.limit:
            self.limit.reschedule(None)
        try:
            await self._room.wait(count)
        finally:
            self.waited_s = self._room.clock() - started
            if self.limit and until is not None:
                self.limit.reschedule(until + self.waited_s)
