"""Tell a command or a webhook how a retraining ended; what goes wrong there is said, and fails nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable
from contextlib import suppress
from http.client import HTTPException
from typing import Any
from urllib.error import URLError
from urllib.request import Request, urlopen

from curate.run.printable import printable
from workflows.retraining.config import NotifyConfig
from workflows.retraining.tries import tried

_CHANGES = ("promoted", "rejected", "undecided", "failed")


def tell(config: NotifyConfig, outcome: dict[str, Any], say: Callable[[str], None]) -> None:
    """Tell whom the settings name.

    Args:
        config: of the messages.
        outcome: what ``--json`` prints.
        say: prints a line for the user, where a message could not be delivered.
    """
    if outcome["outcome"] not in _CHANGES and config.on != "all":
        return
    text = json.dumps(outcome, sort_keys=True)
    if config.command is not None:
        _tried("notify.command", config, lambda: _run(config, outcome["sentence"], text), say)
    if config.url is not None:
        _tried("notify.url", config, lambda: _post(config, text), say)


def _tried(
    key: str, config: NotifyConfig, once: Callable[[], str], say: Callable[[str], None]
) -> None:
    if problem := tried(config.attempts, once):
        say(f"warning: {key} was not delivered in {config.attempts} tries: {problem}")


def _run(config: NotifyConfig, sentence: str, text: str) -> str:
    assert config.command is not None
    try:
        child = subprocess.Popen(
            config.command,
            shell=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env={**os.environ, "DARKROOM_SENTENCE": sentence},
            start_new_session=True,  # so that a shell's own children end with it
        )
        with child:
            try:
                _, said = child.communicate(text.encode(), timeout=config.timeout_s)
            except subprocess.TimeoutExpired:
                return f"it took longer than notify.timeout_s={config.timeout_s:g}"
            finally:
                with suppress(ProcessLookupError, PermissionError):
                    if child.poll() is None:
                        os.killpg(child.pid, signal.SIGKILL)
    except (OSError, ValueError) as error:
        return str(error)
    last = printable(said.decode(errors="replace")).strip().splitlines()[-1:]
    return f"exit code {child.returncode} {''.join(last)}".strip() if child.returncode else ""


def _post(config: NotifyConfig, text: str) -> str:
    assert config.url is not None
    headers = {"Content-Type": "application/json", "User-Agent": "darkroom"}
    try:
        with urlopen(Request(config.url, text.encode(), headers), timeout=config.timeout_s) as said:
            said.read(1)
    except (URLError, HTTPException, OSError, ValueError) as error:
        return str(getattr(error, "reason", "") or error or type(error).__name__)
    return ""
