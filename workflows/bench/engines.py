"""What the engines cost: seconds until the first of many small tasks is done, and for each further task."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from curate.run import cores
from curate.run.engine.config import NAMES, EngineConfig
from curate.run.engine.opened import open_engine
from curate.run.engine.tasks import Progress, Worker, WorkerSpec
from workflows.bench.compare import say

TASKS, TASK_S = 400, 0.005  # each does nothing for that long


def run(workers: int | None = None) -> None:
    """Print the overhead of each engine that is installed, with as many workers as there are cores."""
    workers = workers or cores.usable()
    say(f"engines: {TASKS} tasks of {1000 * TASK_S:.0f} ms, {workers} workers (in process: one)")
    for name in NAMES:
        if name == "ray" and find_spec("ray") is None:
            say("  ray is not installed")
            continue
        at_once = None if name == "inprocess" else workers
        first_s, each_s, end_s = overhead(EngineConfig(name=name, workers=at_once))
        say(
            f"  {name:<10} first result after {first_s:.2f} s, then {1000 * each_s:.2f} ms a task more than its work "
            f"and {end_s:.2f} s to end"
        )


def overhead(config: EngineConfig) -> tuple[float, float, float]:
    """Seconds to the first result without its work, for each further task without it, and to the end."""
    at_once = config.workers or 1
    with tempfile.TemporaryDirectory() as folder:
        start = time.monotonic()
        with open_engine(config, Path(folder)) as engine:
            spec = WorkerSpec(f"{__name__}:{idle.__name__}", {"seconds": TASK_S})
            results = engine.map(spec, range(TASKS))
            next(results)
            first = time.monotonic()
            for _ in results:
                pass
            last = time.monotonic()
        end = time.monotonic()
    work = TASK_S / at_once
    return first - start - TASK_S, (last - first) / (TASKS - 1) - work, end - last


@contextmanager
def idle(seconds: float) -> Iterator[Worker]:
    """A worker that waits."""

    def work(task: int, progress: Progress) -> int:
        time.sleep(seconds)
        progress(1)
        return task

    yield work
