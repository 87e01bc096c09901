"""Where a run's folder is: the keys ``run.*``, and the folders in it that are laid out as a run."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from curate.run.remote import is_remote, refuse_local_only
from curate.run.schema import PATH, UserError, check

_ROOT = "runs"
DRY_RUN = "dry_run"
"""The folder of a trial, below its run's; laid out as a run, so that other commands can look at it."""

NOTHING_KEPT = "nothing_kept"
"""As ``DRY_RUN``: the ledger and report of a curation that kept nothing, beside a finished one."""


def check_name(key: str, name: str, root: str = "") -> None:
    """Raise a ``UserError`` if ``name`` is not one of a folder below ``run.root``."""
    if name and "/" not in name and not name.startswith("."):
        return
    above, _, last = name.rstrip("/").rpartition("/")
    folder = above if root in ("", _ROOT) else Path(root, above)  # runs/mine means that root
    instead = f"run.root={folder} {key}={last}" if above and last else f"{key}=mine"
    raise UserError(
        f"{key}={name} is no name of a folder below run.root; give one without / that begins with no "
        f"dot. Type {instead}"
    )


@dataclass
class RunFolder:
    """Where the run's folder is: ``<root>/<name>``, relative to the working directory.

    Attributes:
        root: the folder of all runs.
        name: of the run; the commands that take null choose one, see ``folder.settle``.
    """

    root: str = field(default=_ROOT, metadata=PATH)
    name: str | None = field(default="${dataset.name}", metadata=PATH)

    def __post_init__(self) -> None:
        refuse_local_only(
            "run.root",
            self.root,
            "work there goes on after an interruption, and is locked. Type run.root=runs and, to have the result "
            f"copied, run.copy_to={self.root}",
        )
        if self.name is not None:
            check_name("run.name", self.name, self.root)

    @property
    def folder(self) -> Path:
        """The run's folder."""
        assert self.name is not None, "a command chooses a run before it uses the folder"
        return Path(self.root, self.name)


@dataclass
class RunConfig(RunFolder):
    """The same for the curation.

    Attributes:
        replace: replace the shards even if a training stands on them.
        cache_gb: gigabytes of ``<root>/.cache``; a note says so where it holds more.
        copy_to: a URL, such as ``s3://bucket/prefix``, under which the finished curation is copied.
    """

    replace: bool = False
    cache_gb: float = 100.0
    copy_to: str | None = field(default=None, metadata=PATH)

    def __post_init__(self) -> None:
        super().__post_init__()
        check(self.cache_gb >= 0, "run.cache_gb", self.cache_gb, ">= 0")
        url = self.copy_to
        check(
            url is None or is_remote(url), "run.copy_to", url, "null or a URL, s3://BUCKET/PREFIX"
        )
