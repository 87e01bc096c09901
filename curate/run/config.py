"""Where a run's folder is: the keys ``run.root`` and ``run.name``, and the folders in it that are laid out as a run."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from curate.run.schema import PATH, check

DRY_RUN = "dry_run"
"""The folder of a trial, below its run's; laid out as a run, so that other commands can look at it."""

NOTHING_KEPT = "nothing_kept"
"""As ``DRY_RUN``: the ledger and report of a curation that kept nothing, beside a finished one."""


@dataclass
class RunConfig:
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
