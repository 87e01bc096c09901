"""Open the engine that the settings name."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from curate.run import cores
from curate.run.engine.config import EngineConfig
from curate.run.engine.inprocess import InProcess
from curate.run.engine.tasks import Engine


@contextmanager
def open_engine(config: EngineConfig, folder: Path) -> Iterator[Engine]:
    """The engine of ``engine=NAME``; its processes end with the block, or earlier.

    Args:
        config: of the engine.
        folder: for what an engine writes, unless ``engine.scratch`` names another one.

    Raises:
        UserError: the engine is not to be had.
    """
    scratch = Path(config.scratch) if config.scratch else folder
    if config.name == "processes":
        from curate.run.engine.processes import Processes

        yield Processes(config.workers or cores.usable())
    elif config.name == "ray":
        from curate.run.engine.on_ray import on_ray

        with on_ray(config, scratch, folder) as engine:
            yield engine
    else:
        yield InProcess()
