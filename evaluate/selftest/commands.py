"""Runs the commands of the product, as a user types them, with their output in a log file."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from curate.run.signals import EXIT_INTERRUPTED

CURATE, REMOVE, TRAIN, EVALUATE = "curate", "curate.remove", "finetune", "evaluate"
_PROGRESS = re.compile(r"[^\n]*\r")  # what a progress bar has written over


@dataclass(frozen=True, slots=True)
class Done:
    """How a command ended.

    Attributes:
        code: its exit code.
        output: what it printed, without progress bars.
    """

    code: int
    output: str

    @property
    def error(self) -> str:
        """The paragraph of a refusal, or else the last line."""
        _, marker, text = self.output.rpartition("error: ")
        return text.strip() if marker else (self.output.strip().splitlines() or [""])[-1]


class CommandFailed(RuntimeError):
    """A command ended with an error where the next step needs its result."""


def run(log: Path, module: str, *arguments: str, expected: tuple[int, ...] | None = (0,)) -> Done:
    """Run ``python -m MODULE ARGUMENT ...`` and wait for it.

    Args:
        log: a file that its output is appended to.
        module: such as ``CURATE``.
        arguments: as a user types them.
        expected: exit codes that are no failure; None takes all.

    Raises:
        CommandFailed: it ended with another code; says which command and where its output is.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}
    with log.open("a+", encoding="utf-8", errors="replace", newline="") as stream:
        stream.write(f"$ python -m {module} {' '.join(arguments)}\n")
        stream.flush()
        start = stream.tell()
        code = subprocess.run(
            [sys.executable, "-m", module, *arguments],
            stdout=stream,
            stderr=subprocess.STDOUT,
            env=environment,
            check=False,
        ).returncode
        stream.seek(start)
        done = Done(code, _PROGRESS.sub("", stream.read()))
    if code in (-signal.SIGINT, EXIT_INTERRUPTED):
        raise KeyboardInterrupt
    if expected is not None and code not in expected:
        raise CommandFailed(
            f"python -m {module} ended with {code}: {done.error} (all of it: {log})"
        )
    return done
