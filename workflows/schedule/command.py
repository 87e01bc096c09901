"""The command that retrains, started and waited for; what its exit code and its last line say."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workflows.schedule.settings import Settings

CHECKOUT = Path(__file__).resolve().parents[2]
TIED = Path(__file__).with_name("tied.py")
DONE = 0
FINAL = (1, 2, 3)
"""Exit codes with which another start would end as well: rejected, wrong settings, undecidable."""

_ERROR = "error: "


@dataclass(frozen=True, slots=True)
class Reply:
    """How the command ended.

    Attributes:
        code: its exit code.
        outcome: as the command names it; "" where it named none.
        sentence: for a person.
        said: all it said of itself in JSON.
    """

    code: int
    outcome: str
    sentence: str
    said: dict[str, Any]


def retrain(settings: Settings, experiment: str, *further: str) -> Reply:
    """Run the command to its end and print what it prints.

    It gets SIGTERM, upon which it stores how far it is and ends, when this function is interrupted and, on
    Linux, when this process is killed: else it would go on, and keep the next start out.

    Args:
        experiment: one of ``settings.experiments``.
        further: arguments, such as ``until=curate``.
    """
    arguments = [f"experiment={experiment}", *settings.arguments, *further, "--json"]
    lines = []
    with subprocess.Popen(
        [sys.executable, str(TIED), str(os.getpid()), *settings.command, *arguments],
        cwd=CHECKOUT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,  # it gets a signal once: from here
    ) as process:
        try:
            for line in process.stdout or ():
                print(line, end="", flush=True)
                lines = [*lines[-99:], line]  # its last words
            process.wait()
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                process.wait()
    return reply_of(process.returncode, lines)


def reply_of(code: int, lines: list[str]) -> Reply:
    """What a command said that ended with ``code`` and printed ``lines``.

    The last object in JSON says it; a command whose settings are wrong ends before, with a line "error: …".

    >>> reply_of(2, ["error: there is no such experiment"]).sentence
    'there is no such experiment'
    """
    said = next((found for line in reversed(lines) if (found := _object(line))), {})
    error = next((line for line in reversed(lines) if line.startswith(_ERROR)), "")
    sentence = said.get("sentence") or error.removeprefix(_ERROR).strip()
    outcome = said.get("outcome", "")
    return Reply(code, outcome, sentence or f"the command ended with exit code {code}", said)


def _object(line: str) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except ValueError:
        return {}
    return found if isinstance(found, dict) and "outcome" in found else {}
