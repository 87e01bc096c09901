"""The engine that carries out one task after another in this process."""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Sequence
from typing import Any

from curate.run.engine.tasks import ATTEMPTS, Progress, Result, Worker, WorkerSpec
from curate.run.schema import UserError


class InProcess:
    """See ``tasks.Engine``."""

    def map(
        self, spec: WorkerSpec, tasks: Sequence[Any], progress: Progress = lambda count: None
    ) -> Iterator[Result]:
        """See ``tasks.Engine.map``."""
        if not tasks:
            return
        with spec.build() as worker:
            for task in tasks:
                yield attempted(worker, task, progress)


def attempted(worker: Worker, task: Any, progress: Progress) -> Result:
    """The result of a task, tried up to ``ATTEMPTS`` times."""
    error = ""
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return Result(task, worker(task, progress), attempts=attempt)
        except UserError as refused:
            return Result(task, error=str(refused), attempts=attempt, refusal=True)
        except Exception as raised:
            error = "".join(traceback.format_exception_only(raised)).strip()
    return Result(task, error=error, attempts=ATTEMPTS)
