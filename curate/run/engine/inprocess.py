"""The engine that carries out one task after another in this process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from curate.run.engine.tasks import (
    ATTEMPTS,
    Progress,
    Result,
    Worker,
    WorkerSpec,
    in_words,
    sendable,
)


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
    """The result of a task, tried up to ``ATTEMPTS`` times; what a failed attempt had counted is taken back."""
    error = ""
    for attempt in range(1, ATTEMPTS + 1):
        counts: list[int] = []
        try:
            value = sendable(worker(task, _both(counts.append, progress)))
            return Result(task, value, attempts=attempt)
        except (Exception, SystemExit) as raised:
            progress(-sum(counts))
            error, refusal = in_words(raised)
            if refusal:
                return Result(task, error=error, attempts=attempt, refusal=True)
    return Result(task, error=error, attempts=ATTEMPTS)


def _both(one: Progress, other: Progress) -> Progress:
    def count(done: int) -> None:
        one(done)
        other(done)

    return count
