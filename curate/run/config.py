"""Where a run's folder is: the keys ``run.*``, and the folder of its trial."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from curate.run.schema import PATH, check

DRY_RUN = "dry_run"
"""The folder of a trial, below its run's; laid out as a run, so that other commands can look at it."""


@dataclass
class RunFolder:
    """Where the run's folder is: ``<root>/<name>``, relative to the working directory."""

    root: str = field(default="runs", metadata=PATH)
    name: str = field(default="${dataset.name}", metadata=PATH)

    def __post_init__(self) -> None:
        sound = bool(self.name) and "/" not in self.name and not self.name.startswith(".")
        check(sound, "run.name", self.name, "one folder name; run.root=FOLDER says where it is")

    @property
    def folder(self) -> Path:
        """The run's folder."""
        return Path(self.root, self.name)


@dataclass
class RunConfig(RunFolder):
    """The same for the curation.

    Attributes:
        replace: replace the shards even if a training stands on them.
    """

    replace: bool = False
