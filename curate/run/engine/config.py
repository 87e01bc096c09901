"""The typed schema of the group ``engine/``: where tasks are carried out, and what that may use."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path

from curate.run import cores
from curate.run.database import Limits
from curate.run.memory import for_tables
from curate.run.schema import PATH, UserError, check, register

NAMES = ("inprocess", "processes", "ray")
_OF_ENGINES = {"workers": ("processes", "ray"), "gpus_per_worker": ("ray",), "address": ("ray",)}

_SIZE = re.compile(r"(\d+(?:\.\d+)?) ?(kB|MB|GB|TB)", re.IGNORECASE)
_UNITS = {"kb": 1e3, "mb": 1e6, "gb": 1e9, "tb": 1e12}
_LEAST_BYTES = 100_000_000


@dataclass
class EngineConfig:
    """Where tasks are carried out. No result depends on any of these.

    Attributes:
        name: the engine: inprocess, processes or ray.
        workers: processes, or actors of Ray, that carry out tasks at once; null is one for each core that this
            process may use, of a Ray cluster for each of its cores. inprocess has none.
        gpus_per_worker: of Ray: GPUs that a worker has for itself where it measures or compares embeddings; 0: it
            computes on the processor. There are no more workers than the cluster has GPUs for; a share puts several
            on one, above 1 they are whole.
        address: of Ray: the cluster's; null starts one on this machine, "auto" finds the one that runs here.
        memory: of the process that decides, for tables: "2GB"; beyond it they go to ``scratch``. null is 40 % of
            what the machine has, or the container if that is less.
        scratch: the folder for what does not fit; null is a folder in the run's own.
        threads: of a query on tables; null is one for each core that this process may use.
    """

    name: str = "inprocess"
    workers: int | None = None
    gpus_per_worker: float = 0.0
    address: str | None = field(default=None, metadata=PATH)
    memory: str | None = None
    scratch: str | None = field(default=None, metadata=PATH)
    threads: int | None = None

    def __post_init__(self) -> None:
        check(self.name in NAMES, "engine", self.name, ", ".join(NAMES))
        for name in ("workers", "threads"):
            count = getattr(self, name)
            check(count is None or count >= 1, f"engine.{name}", count, "null or >= 1")
        gpus = self.gpus_per_worker
        fits = 0 <= gpus <= 1 or (gpus > 1 and float(gpus).is_integer())
        check(fits, "engine.gpus_per_worker", gpus, "a share from 0 to 1, or a whole number")
        self._refuse_unused()
        accepted = "null or a size of 100MB or more, such as 2GB"
        sized = self.memory is None or (
            _SIZE.fullmatch(self.memory) is not None and self.memory_bytes >= _LEAST_BYTES
        )
        check(sized, "engine.memory", self.memory, accepted)

    def _refuse_unused(self) -> None:
        """Refuse what the engine has no use for: whoever sets it believes that it does something."""
        for key, others in _OF_ENGINES.items():
            value = getattr(self, key)
            if self.name in others or not value:
                continue
            shown = f"{value:g}" if isinstance(value, float) else value
            choices = ", or ".join(f"engine={name} engine.{key}={shown}" for name in others)
            raise UserError(
                f"engine.{key}={shown} does nothing with engine={self.name}; type {choices}, or leave "
                f"engine.{key} out"
            )

    @property
    def memory_bytes(self) -> int:
        """``memory`` in bytes."""
        if self.memory is None:
            return for_tables()
        found = _SIZE.fullmatch(self.memory)
        assert found is not None, self.memory
        return int(float(found[1]) * _UNITS[found[2].lower()])

    def limits(self, folder: Path) -> Limits:
        """What a database may use, with its scratch in ``folder`` unless the settings name another one."""
        scratch = Path(self.scratch) if self.scratch else folder / "scratch"
        threads = self.threads or cores.usable()
        advice = "type engine.scratch=FOLDER, on a disk with more room; the same command resumes"
        more = advice if self.scratch else ""
        return Limits(scratch, self.memory_bytes, threads, more_scratch=more)

    def limits_in_temporary(self, folder: Path) -> Limits:
        """As ``limits``, of a ``folder`` for temporary files, which TMPDIR chooses."""
        advice = "type engine.scratch=FOLDER, on a disk with more room, or set TMPDIR to one"
        return replace(self.limits(folder), more_scratch=advice)


def refuse_absent(config: EngineConfig) -> None:
    """Refuse an engine whose package is not installed.

    Raises:
        UserError: says what to type.
    """
    if config.name == "ray" and find_spec("ray") is None:
        raise UserError("engine=ray needs package 'ray'; type: pip install \"darkroom[ray]\"")


register(EngineConfig, "engine", "engine")
