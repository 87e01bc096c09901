"""What to type next: the commands, and the arguments that name a run."""

from __future__ import annotations

import shlex
from pathlib import Path

from curate.run.overrides import key_of, typed

COMMANDS = {
    "curate": "python -m curate",
    "train": "accelerate launch finetune/train.py",
    "evaluate": "python -m evaluate",
    "sample": "python -m evaluate.sample",
    "retrain": "python -m workflows.retrain",
}
"""How the command of each section is typed."""


def run_arguments(run_dir: Path) -> str:
    """What to type for a command to find a run's folder.

    >>> run_arguments(Path("runs/demo")), run_arguments(Path("/my runs/demo"))
    ('run.name=demo', "run.name=demo 'run.root=/my runs'")
    """
    arguments = [f"run.name={run_dir.name}"]
    if run_dir.parent != Path("runs"):
        arguments.append(f"run.root={run_dir.parent}")
    return shlex.join(arguments)


def named(run_dir: Path) -> str:
    """What to type as the argument RUN of a command such as ``curate.verify``.

    >>> named(Path("runs/demo")), named(Path("/my runs/demo"))
    ('demo', "'/my runs/demo'")
    """
    return shlex.quote(run_dir.name if run_dir.parent == Path("runs") else str(run_dir))


def next_arguments(run_dir: Path) -> str:
    """What to type for the next command: this one's experiment, which holds its settings, and the run."""
    experiment = [text for text in typed() or [] if key_of(text) == "experiment"]
    return " ".join([*map(shlex.quote, experiment), run_arguments(run_dir)])
