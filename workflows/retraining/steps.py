"""Run the commands of a retraining, each in a process of its own that inherits the lock."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType

from curate.run.locks import add_holder
from curate.run.signals import EXIT_INTERRUPTED

EXIT_FAILED = 70  # EX_SOFTWARE: a step failed, and the same command resumes
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
    child = subprocess.Popen(
        command,
        env={**os.environ, **environment},
        pass_fds=[] if lock is None else [lock],
        start_new_session=True,
    )
    if lock is not None:
        add_holder(lock, child.pid, " ".join(command[1:3]))
    with _passing_on(child.pid) as asked:
        code = child.wait()
        _wait_for_group(child.pid)
    if asked:
        raise KeyboardInterrupt(asked[0])
    if code == EXIT_INTERRUPTED or -code in _SIGNALS:
        raise KeyboardInterrupt("a step was interrupted")
    return code


@contextmanager
def _passing_on(group: int) -> Iterator[list[str]]:
    """Pass signals on to a process group; yields the names of those that came."""
    asked: list[str] = []

    def pass_on(number: int, _frame: FrameType | None) -> None:
        asked.append(signal.Signals(number).name)
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(group, number)

    before = {number: signal.signal(number, pass_on) for number in _SIGNALS}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _wait_for_group(group: int) -> None:
    """Wait for processes of the group that outlive the one that was started; end those that do not leave."""
    give_up = time.monotonic() + _PATIENCE_S
    while _is_alive(group):
        if time.monotonic() > give_up:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(group, signal.SIGKILL)
            return
        time.sleep(_PAUSE_S)


def _is_alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except (ProcessLookupError, PermissionError):
        return False
    return True
