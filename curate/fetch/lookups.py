"""Hosts' names looked up in threads, where a name server that hangs holds up neither others nor the end."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress

AT_ONCE = 32
"""Names that are looked up at one time and waited for; ``getaddrinfo`` blocks."""

THREADS = 256
"""Those that nobody waits for any more, and that the system still looks up, included."""

Lookup = Callable[[str], list[str]]
"""A host's name to its addresses, blocking; raises ``socket.gaierror``."""


def system_lookup(host: str) -> list[str]:
    """The addresses of a host, in the order of preference of the system."""
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class TooLate(Exception):
    """There was no answer within the time that was given."""


class _Job:
    """One name: who waits for it, and whether it takes one of the places."""

    __slots__ = ("begun", "done", "has_place", "host", "waiting")

    def __init__(self, host: str, loop: asyncio.AbstractEventLoop) -> None:
        self.host = host
        self.begun: asyncio.Future[None] = loop.create_future()
        self.done: asyncio.Future[list[str]] = loop.create_future()
        self.waiting = 0
        self.has_place = False


class Lookups:
    """Looks up each name once for all who ask meanwhile.

    A lookup that has begun cannot be stopped: once nobody waits for it any more it leaves its place to
    another name, and its answer is still used if it comes. One that has not begun is dropped then. The
    threads are daemons, for Python waits for others before it ends.
    """

    def __init__(self, lookup: Lookup, end: Callable[[str, list[str] | Exception], object]) -> None:
        """Prepare.

        Args:
            lookup: blocks.
            end: gets each host with its addresses or the error, in the event loop's thread.
        """
        self._lookup, self._end = lookup, end
        self._jobs: dict[str, _Job] = {}
        self._queue: OrderedDict[str, _Job] = OrderedDict()
        self._places, self._threads = AT_ONCE, THREADS

    async def addresses(self, host: str, limit_s: float) -> list[str]:
        """The addresses of a host.

        Args:
            host: a name.
            limit_s: seconds from the moment at which the lookup begins.

        Raises:
            TooLate: they are over.
            Exception: what the lookup raised.
        """
        job = self._jobs.get(host)
        if job is None:
            job = _Job(host, asyncio.get_running_loop())
            self._jobs[host] = self._queue[host] = job
            self._begin()
        job.waiting += 1
        try:
            await asyncio.shield(job.begun)
            ended, _ = await asyncio.wait([job.done], timeout=limit_s)
            if not ended:
                raise TooLate
            return job.done.result()
        finally:
            job.waiting -= 1
            if not job.waiting:
                self._leave(job)

    def close(self) -> None:
        """Begin no further lookup."""
        self._queue.clear()
        self._places = 0

    def _begin(self) -> None:
        while self._queue and self._places > 0 and self._threads > 0:
            _, job = self._queue.popitem(last=False)
            self._places -= 1
            self._threads -= 1
            job.has_place = True
            job.begun.set_result(None)
            arguments = (job, asyncio.get_running_loop())
            threading.Thread(target=self._run, args=arguments, daemon=True, name="dns").start()

    def _run(self, job: _Job, loop: asyncio.AbstractEventLoop) -> None:
        try:
            found: list[str] | Exception = self._lookup(job.host)
        except Exception as error:  # handed to whoever waits
            found = error
        with suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(self._ended, job, found)

    def _ended(self, job: _Job, found: list[str] | Exception) -> None:
        self._threads += 1
        del self._jobs[job.host]
        self._end(job.host, found)
        if isinstance(found, Exception):
            job.done.set_exception(found)
            job.done.exception()  # looked at: whoever asked may have given up waiting
        else:
            job.done.set_result(found)
        self._free(job)

    def _leave(self, job: _Job) -> None:
        """Nobody waits for it."""
        if self._queue.pop(job.host, None) is not None:
            del self._jobs[job.host]
        self._free(job)

    def _free(self, job: _Job) -> None:
        if job.has_place:
            job.has_place = False
            self._places += 1
        self._begin()
