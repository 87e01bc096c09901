"""Dagster's launcher of runs, which also notices that a run's process is gone, so that the run does not hold the queue."""

# Dagster is an extra.
# pyright: reportMissingImports=false

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
from dagster._core.launcher.base import CheckRunHealthResult, WorkerStatus


@contextmanager
def at_work(run_id: str) -> Iterator[None]:
    """Hold a lock that the system gives back when this process ends, however it ends."""
    path = _path(run_id)
    path.parent.mkdir(exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            path.unlink()


class WatchedRunLauncher(dg.DefaultRunLauncher):
    """Named in ``dagster.yaml``. Dagster's own knows only of processes that it started itself, since its last start."""

    @property
    def supports_check_run_worker_health(self) -> bool:
        """It does."""
        return True

    def check_run_worker_health(self, run: dg.DagsterRun) -> CheckRunHealthResult:
        """Whether the process that does a step of a run is there; between steps it is taken to be."""
        try:
            file = _path(run.run_id).open()
        except FileNotFoundError:
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return CheckRunHealthResult(WorkerStatus.RUNNING)
        return CheckRunHealthResult(WorkerStatus.FAILED, "its process is gone")


def _path(run_id: str) -> Path:
    return Path(os.environ["DAGSTER_HOME"]) / "at_work" / run_id
