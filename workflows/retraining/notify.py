"""Tell a command or a webhook how a retraining ended; what goes wrong there is said, and fails nothing."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable
from typing import Any
from urllib.error import URLError
from urllib.request import Request, urlopen

from workflows.retraining.config import NotifyConfig

_PAUSE_S = 2.0  # after the first try; doubled after each


def tell(config: NotifyConfig, outcome: dict[str, Any], say: Callable[[str], None]) -> None:
    """Tell whom the settings name.

    Args:
        config: of the messages.
        outcome: what ``--json`` prints.
        say: prints a line for the user, where a message could not be delivered.
    """
    if outcome["outcome"] == "nothing_to_do" and config.on != "all":
        return
    text = json.dumps(outcome, sort_keys=True)
    if config.command is not None:
        _tried("notify.command", config, lambda: _run(config, outcome["sentence"], text), say)
    if config.url is not None:
        _tried("notify.url", config, lambda: _post(config, text), say)


def _tried(
    key: str, config: NotifyConfig, once: Callable[[], str], say: Callable[[str], None]
) -> None:
    """Try until it works or the attempts are used up; ``once`` returns what went wrong, or ""."""
    problem = ""
    for attempt in range(config.attempts):
        if attempt:
            time.sleep(_PAUSE_S * 2 ** (attempt - 1))
        if not (problem := once()):
            return
    say(f"warning: {key} was not delivered in {config.attempts} tries: {problem}")


def _run(config: NotifyConfig, sentence: str, text: str) -> str:
    assert config.command is not None
    environment = {**os.environ, "DARKROOM_SENTENCE": sentence}
    try:
        done = subprocess.run(
            config.command,
            shell=True,
            input=text,
            text=True,
            env=environment,
            timeout=config.timeout_s,
            capture_output=True,
        )
    except subprocess.TimeoutExpired:
        return f"it took longer than notify.timeout_s={config.timeout_s:g}"
    except OSError as error:
        return str(error)
    last = done.stderr.strip().splitlines()[-1:]
    return f"exit code {done.returncode} {''.join(last)}".strip() if done.returncode else ""


def _post(config: NotifyConfig, text: str) -> str:
    assert config.url is not None
    headers = {"Content-Type": "application/json", "User-Agent": "darkroom"}
    try:
        with urlopen(Request(config.url, text.encode(), headers), timeout=config.timeout_s) as said:
            said.read(1)
    except (URLError, OSError, ValueError) as error:
        return str(getattr(error, "reason", error) or error)
    return ""
