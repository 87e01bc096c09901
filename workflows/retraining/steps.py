"""Run the commands of a retraining, each in a process of its own that inherits the lock."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

from curate.run.locks import add_holder
from curate.run.signals import EXIT_INTERRUPTED

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
_PAUSE_S = 0.1
_PATIENCE_S = 600  # for processes that a launcher left behind, which store a checkpoint


class Failed(RuntimeError):
    """A command failed in a way that the user's settings do not explain; its own output says why."""


def run(command: Sequence[str], lock: int | None, environment: dict[str, str]) -> int:
    """Run a command to its end; returns its exit code.

    It has a process group of its own: signals go to the group once, through this process, so that a
    launcher that passes nothing on leaves nobody training. The lock stays with the command if this process
    is killed.

    Args:
        command: program and arguments.
        lock: descriptor of the lock, see ``locks.locked``.
        environment: what is added to this process's.

    Raises:
        KeyboardInterrupt: a signal asked to end, and the command has ended.
    """
    sys.stdout.flush()
    with _Signals() as signals:
        child = subprocess.Popen(
            command,
            env={**os.environ, **environment},
            pass_fds=[] if lock is None else [lock],
            start_new_session=True,
        )
        signals.pass_on_to(child.pid)
        if lock is not None:
            words = [Path(word).name for word in command[:3] if "=" not in word]
            add_holder(lock, child.pid, " ".join(words))
        code = child.wait()
        _wait_for_group(child.pid)
    if signals.asked:
        raise KeyboardInterrupt(signals.asked[0])
    if code == EXIT_INTERRUPTED or -code in _SIGNALS:
        raise KeyboardInterrupt("a step was interrupted")
    return code


class _Signals:
    """Passes signals on to a process group, those that came before there was one as well."""

    def __init__(self) -> None:
        self.asked: list[str] = []  # names of those that came
        self._unsent: deque[int] = deque()
        self._group = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> _Signals:
        self._before = {number: signal.signal(number, self._note) for number in _SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def pass_on_to(self, group: int) -> None:
        """From now on, to the group that a process leads."""
        self._group = group
        self._send()

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self.asked.append(signal.Signals(number).name)
        self._unsent.append(number)
        if self._group:
            self._send()

    def _send(self) -> None:
        """Each of them once, also where a signal comes in between."""
        with suppress(IndexError, ProcessLookupError, PermissionError):
            while True:
                os.killpg(self._group, self._unsent.popleft())


def _wait_for_group(group: int) -> None:
    """Wait for processes of the group that outlive the one that was started; end those that do not leave."""
    give_up = time.monotonic() + _PATIENCE_S
    while _is_alive(group):
        if time.monotonic() > give_up:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(group, signal.SIGKILL)
            return
        time.sleep(_PAUSE_S)
        with suppress(
            ChildProcessError
        ):  # as the first process of a container, this one inherits them
            os.waitpid(-group, os.WNOHANG)


def _is_alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except (ProcessLookupError, PermissionError):
        return False
    return True
