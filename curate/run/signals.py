"""Signals that ask a command to end: they interrupt it at once, or at the next place where it can be resumed."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

EXIT_INTERRUPTED = 130
_ASKING = (signal.SIGTERM, signal.SIGUSR1)  # what schedulers send before they kill
_COPY_S = 2.0
"""A launcher passes on the signal that the scheduler has sent to all processes; so it comes twice."""


@contextmanager
def interruptible() -> Iterator[None]:
    """SIGTERM and SIGUSR1 raise ``KeyboardInterrupt`` in the block, as Ctrl-C does; a second one ends at once."""

    def interrupt(number: int, _frame: FrameType | None) -> None:
        for other in _ASKING:
            signal.signal(other, _end_at_once)
        raise KeyboardInterrupt(signal.Signals(number).name)

    with _handled(dict.fromkeys(_ASKING, interrupt)):
        yield


class StopRequest:
    """Whether a signal has asked to stop, for work that first stores how far it is.

    In the block of ``deferred``, Ctrl-C as well as SIGTERM and SIGUSR1 only set ``made``; a second
    signal ends the process at once.
    """

    def __init__(self) -> None:
        self.made: str | None = None  # the signal's name
        self._at = 0.0

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Signals wait for the block to look at ``made``."""
        with _handled(dict.fromkeys((signal.SIGINT, *_ASKING), self._note)):
            yield

    def _note(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self.made is None:
            self.made, self._at = signal.Signals(number).name, now
            _say(f"\n{self.made}: stopping with a checkpoint; a second signal ends at once\n")
        elif "TORCHELASTIC_RUN_ID" not in os.environ or now - self._at > _COPY_S:
            _end_at_once(number, frame)


def _end_at_once(_number: int, _frame: FrameType | None) -> None:
    _say("\nended at once\n")
    os._exit(EXIT_INTERRUPTED)


def _say(text: str) -> None:
    """Print from a signal handler: buffered streams may be in use."""
    os.write(2, text.encode())


@contextmanager
def _handled(handlers: dict[Any, Any]) -> Iterator[None]:
    """Install handlers for a block; outside the main thread, where Python has none, nothing happens."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
