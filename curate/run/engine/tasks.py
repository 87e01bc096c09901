"""What every engine takes and gives: a worker to build, tasks for it, and exactly one result for each."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from importlib import import_module
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any, Protocol

from curate.run.lacking import explain_lack
from curate.run.schema import UserError

ATTEMPTS = 3  # at a task that raises, or whose process dies

Progress = Callable[[int], object]
"""Called with how much of a task was done since the last call, in the unit of the stage, such as images."""

Worker = Callable[[Any, Progress], Any]
"""Carries out a task: (task, progress) => its value. Both are plain data that can be pickled.

It writes its results under a temporary name and renames them last, and gives the same bytes each time, so
that a task may be carried out twice, even at once.
"""


@dataclass(frozen=True, slots=True)
class WorkerSpec:
    """How a worker is built, once in each process.

    Attributes:
        factory: ``"package.module:function"``; it is called with ``arguments`` and gives a context manager
            around a ``Worker``.
        arguments: keyword arguments, plain data and dataclasses, which are pickled.
        uses_gpu: whether the worker computes on a GPU where there is one, and so takes ``engine.gpus_per_worker``;
            others take none.
    """

    factory: str
    arguments: dict[str, Any] = field(default_factory=dict)
    uses_gpu: bool = False

    def build(self) -> AbstractContextManager[Worker]:
        """The worker of this process."""
        module, _, name = self.factory.partition(":")
        return getattr(import_module(module), name)(**self.arguments)


@dataclass(frozen=True, slots=True)
class Result:
    """The outcome of a task.

    Attributes:
        task: as it was given.
        value: what the worker returned; None where it failed.
        error: why the task failed in its last attempt; "" where it did not.
        attempts: how often it was begun.
        refusal: whether it is for the user to mend, and another attempt would fail as well; see ``in_words``.
    """

    task: Any
    value: Any = None
    error: str = ""
    attempts: int = 1
    refusal: bool = False


def sendable(value: Any) -> Any:
    """The value of a task, which has to be one that another process can be sent, so that each engine takes the same.

    Raises:
        TypeError: it cannot be pickled.
    """
    try:
        ForkingPickler.dumps(value)
    except Exception as error:
        raise TypeError(f"the value of a task, {type(value).__name__}: {error}") from error
    return value


def in_words(error: Exception | SystemExit) -> tuple[str, bool]:
    """An error as a ``Result`` has it, and whether it is a refusal: a ``UserError``, or a disk that is full or closed."""
    if isinstance(error, UserError):
        return str(error), True
    if isinstance(error, OSError) and (lacking := explain_lack(error)):
        return lacking, True
    said = "".join(traceback.format_exception_only(error)).strip()
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    return f"{said}{where}", False


class Engine(Protocol):
    """Carries out tasks."""

    def map(
        self, spec: WorkerSpec, tasks: Sequence[Any], progress: Progress = lambda count: None
    ) -> Iterator[Result]:
        """One result for each task, in no order.

        It never raises for a task that fails: one that raises, calls ``sys.exit``, gives what cannot be pickled, or
        whose process dies, is tried up to ``ATTEMPTS`` times, and a ``UserError`` once.
        """
        ...


class TasksFailed(RuntimeError):
    """Tasks failed in every attempt; the others are done, and the same command does these again."""


def values(results: Iterator[Result], what: str) -> list[Any]:
    """The values of all tasks, in the order of completion, once all are done.

    Raises:
        UserError: of the first task that raised one.
        TasksFailed: any failed; names up to three, with ``what`` they were to do.
    """
    done, failed = [], []
    for result in results:
        if result.error:
            failed.append(result)
        else:
            done.append(result.value)
    for result in failed:
        if result.refusal:
            raise UserError(result.error)
    if failed:
        shown = "; ".join(f"{result.task}: {result.error}" for result in failed[:3])
        more = f" and {len(failed) - 3} more" if len(failed) > 3 else ""
        raise TasksFailed(
            f"{what}: {len(failed)} of {len(failed) + len(done)} tasks failed in {ATTEMPTS} attempts ({shown}{more}); "
            "the others are done, and the same command goes on from there"
        )
    return done
