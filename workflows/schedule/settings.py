"""What is retrained, when and by which command: read from the environment, because Dagster passes on nothing else."""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

WEEKLY = "17 3 * * 0"  # Sunday, not on the hour, when everything else starts


@dataclass(frozen=True, slots=True)
class Settings:
    """Of one scheduler.

    Attributes:
        experiments: names or files, ``DARKROOM_EXPERIMENT``; several are separated by spaces.
        cron: when they are retrained, ``DARKROOM_CRON``.
        timezone: of ``cron``, ``DARKROOM_TIMEZONE``.
        look_s: how often somebody looks whether there is something new, ``DARKROOM_LOOK_S``; 0: only at the
            times of ``cron``.
        arguments: further settings of each retraining, ``DARKROOM_ARGUMENTS``, such as ``run.root=/srv/runs``.
        command: that retrains, ``DARKROOM_COMMAND``; by default this Python's ``-m workflows.retrain``.
    """

    experiments: tuple[str, ...]
    cron: str
    timezone: str
    look_s: int
    arguments: tuple[str, ...]
    command: tuple[str, ...]


def read(environment: Mapping[str, str] = os.environ) -> Settings:
    """From variables of the environment.

    Raises:
        ValueError: a variable is wrong; says what to type.
    """
    look = environment.get("DARKROOM_LOOK_S", "0")
    if not re.fullmatch(r"\d+", look):
        raise ValueError(
            f"DARKROOM_LOOK_S={look} is no number of seconds; 600 looks every ten minutes"
        )
    experiments = shlex.split(environment.get("DARKROOM_EXPERIMENT", "demo"))
    names = [name_of(each) for each in experiments]
    if not names or len({*names}) < len(names):
        raise ValueError(
            f"DARKROOM_EXPERIMENT={environment.get('DARKROOM_EXPERIMENT')}: name experiments, each with a "
            "name of its own, such as 'my/photos.yaml my/drawings.yaml'"
        )
    command = shlex.split(environment.get("DARKROOM_COMMAND", ""))
    return Settings(
        experiments=tuple(experiments),
        cron=environment.get("DARKROOM_CRON", WEEKLY),
        timezone=environment.get("DARKROOM_TIMEZONE", "UTC"),
        look_s=int(look),
        arguments=tuple(shlex.split(environment.get("DARKROOM_ARGUMENTS", ""))),
        command=tuple(command) or (sys.executable, "-m", "workflows.retrain"),
    )


def name_of(experiment: str) -> str:
    """A name for Dagster, which takes letters, digits and underscores.

    >>> name_of("my/photos-2026.yaml")
    'photos_2026'
    """
    return re.sub(r"\W", "_", Path(experiment).stem)
