"""What pictures of the base show: built-in prompts, or those of a file.

The built-in ones name everyday things in a few words, of all kinds in turn. None of them is among those that an evaluation
draws (``evaluate/measure/neutral_prompts.txt``): what a training holds on to must not be what it is judged by. Nor are
those by which the scale of an export is chosen among those that are replayed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from curate.run.schema import UserError
from finetune.config import TrainConfig

BUILT_IN = Path(__file__).with_name("prompts.txt")
FOR_SCALES = 64  # the first of the built-in prompts; the others are replayed


def replayed(config: TrainConfig) -> list[str]:
    """The prompt of each picture that is drawn to be replayed; none where none are.

    Raises:
        UserError: the file of prompts cannot be used.
    """
    replay = config.replay
    if not replay.share:
        return []
    found = _prompts(replay.prompts, "replay.prompts", slice(FOR_SCALES, None))
    return in_turn(found, replay.pictures or len(found))


def for_scales(config: TrainConfig) -> list[str]:
    """The prompt of each picture by which the scale of an export is chosen; none where it is not chosen.

    Raises:
        UserError: the file of prompts cannot be used.
    """
    export = config.export
    if not export.chosen:
        return []
    found = _prompts(export.prompts, "export.prompts", slice(FOR_SCALES))
    return in_turn(found, export.pictures)


def in_turn(prompts: Sequence[str], count: int) -> list[str]:
    """
    >>> in_turn(["cat", "dog"], 3)
    ['cat', 'dog', 'cat']
    """
    return [prompts[number % len(prompts)] for number in range(count)]


def digest(prompts: Sequence[str]) -> str:
    """SHA-256 of prompts in order."""
    return hashlib.sha256("\n".join(prompts).encode()).hexdigest()


def _prompts(file: str | None, key: str, part: slice) -> list[str]:
    return lines(BUILT_IN)[part] if file is None else of_file(file, key)


def of_file(file: str, key: str) -> list[str]:
    """The prompts of a file, one a line; empty lines are skipped.

    Args:
        file: its path. key: that named it.

    Raises:
        UserError: it is missing, is no text, has no prompts, or the same one twice.
    """
    path = Path(file).expanduser()
    key = f"{key}={path}"
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "is not there"
        raise UserError(f"{key} {what}; give a text file with one prompt a line")
    try:
        found = lines(path)
    except UnicodeDecodeError as error:
        raise UserError(f"{key} is not text in UTF-8; save it as such") from error
    if not found:
        raise UserError(f"{key} has no prompts; give a text file with one prompt a line")
    if repeated := sorted({prompt for prompt in found if found.count(prompt) > 1}):
        raise UserError(f"{key} has the prompt {repeated[0]!r} more than once; keep one of them")
    return found


def lines(path: Path) -> list[str]:
    """The lines of a text that are not empty, runs of spaces as one."""
    found = path.read_text(encoding="utf-8-sig").splitlines()
    return [prompt for line in found if (prompt := " ".join(line.split()))]
