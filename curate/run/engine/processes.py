"""The engine of several processes on this machine: each carries out one task at a time, and may die.

The processes are new interpreters and inherit no file but two: a socket for tasks and results, and the end of a pipe
that nobody writes to. When the process that started them is gone, however it ended, that pipe ends, and so do they.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from socket import socketpair
from threading import Thread
from typing import IO, Any

from curate.run.engine import worker_process
from curate.run.engine.attempts import Attempts
from curate.run.engine.tasks import Progress, Result, WorkerSpec
from curate.run.progress import Bar
from curate.run.schema import UserError

# Several processes share the cores, so a task has one thread of each library for numbers. A waiting thread sleeps.
ENVIRONMENT = {
    **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"),
    "OMP_WAIT_POLICY": "PASSIVE",
    "KMP_BLOCKTIME": "0",
    "PYTHONUNBUFFERED": "1",
}
_PATIENCE_S = 5.0  # for a process that has nothing left to do


class Processes:
    """See ``tasks.Engine``."""

    def __init__(self, workers: int) -> None:
        """``workers``: how many processes there are at once."""
        self._workers = workers

    def map(
        self, spec: WorkerSpec, tasks: Sequence[Any], progress: Progress = lambda count: None
    ) -> Iterator[Result]:
        """See ``tasks.Engine.map``.

        Raises:
            UserError: raised while a worker was built.
            RuntimeError: anything else was, or workers end again and again before they begin a task.
        """
        left = Attempts(tasks)
        workers: list[_Worker] = []
        try:
            while left.waiting or any(worker.place is not None for worker in workers):
                while len(workers) < min(self._workers, len(left.waiting) + _busy(workers)):
                    workers.append(_Worker(spec))
                for ready in wait([worker.connection for worker in workers]):
                    worker = next(each for each in workers if each.connection is ready)
                    try:
                        message = worker.receive()
                    except (EOFError, OSError):
                        workers.remove(worker)
                        how = worker.end(at_once=True)
                        progress(-worker.counted)
                        result = left.worker_ended(worker.place, worker.is_built, how)
                    else:
                        result = _heard(worker, message, left, progress)
                    # Also the task of a dead worker, to one that had none: that one says nothing more by itself.
                    _give(workers, left)
                    if result is not None:
                        yield result
        finally:
            for worker in workers:
                worker.let_go()
            for worker in workers:
                worker.end(at_once=worker.place is not None)


def _busy(workers: Sequence[_Worker]) -> int:
    return sum(worker.place is not None for worker in workers)


def _heard(
    worker: _Worker, message: tuple[str, Any], left: Attempts, progress: Progress
) -> Result | None:
    """Take a message of a worker; it has no task afterwards, unless it told of progress."""
    kind, content = message
    result = None
    if kind == worker_process.PROGRESS:
        worker.counted += content
        progress(content)
        return None
    if kind == worker_process.BROKEN:
        error, refusal = content
        raise UserError(error) if refusal else RuntimeError(f"a worker cannot be built: {error}")
    if kind == worker_process.READY:
        worker.is_built = True
    else:
        assert worker.place is not None, message
        if kind == worker_process.DONE:
            result = left.done(worker.place, content)
        else:
            progress(-worker.counted)
            result = left.failed(worker.place, *content)
    worker.place, worker.counted = None, 0
    return result


def _give(workers: Sequence[_Worker], left: Attempts) -> None:
    """Give waiting tasks to the workers that are built and have none."""
    for worker in workers:
        if not left.waiting:
            return
        if worker.is_built and worker.place is None:
            place = left.begin()
            try:
                worker.connection.send(left.tasks[place])
            except (BrokenPipeError, ConnectionResetError):  # it is found dead in the next round
                left.take_back(place)
            else:
                worker.place = place


class _Worker:
    """A process and its ends of socket and pipe.

    Attributes:
        place: of its task in the list; None where it has none.
        counted: the progress of this attempt.
        is_built: whether it is ready for tasks, or was.
    """

    def __init__(self, spec: WorkerSpec) -> None:
        self.place: int | None = None
        self.counted = 0
        self.is_built = False
        ours, theirs = socketpair()
        read, self._lifeline = os.pipe()
        command = [
            sys.executable,
            "-P",
            "-m",
            worker_process.__name__,
            str(theirs.fileno()),
            str(read),
        ]
        environment = {**os.environ, **ENVIRONMENT}
        environment["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(path or "." for path in sys.path))
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=(theirs.fileno(), read),
            env=environment,
        )
        theirs.close()
        os.close(read)
        self.connection = Connection(ours.detach())
        assert self._process.stdout is not None
        self._reader = Thread(target=_say_lines, args=(self._process.stdout,), daemon=True)
        self._reader.start()
        with suppress(BrokenPipeError, ConnectionResetError):
            self.connection.send(spec)

    def receive(self) -> tuple[str, Any]:
        """The next message, see ``worker_process``."""
        return self.connection.recv()

    def let_go(self) -> None:
        """Say that there are no more tasks."""
        self.connection.close()

    def end(self, *, at_once: bool) -> str:
        """Wait for the process to end, or kill it; says how it ended."""
        if at_once:
            self._process.kill()
        self.connection.close()
        try:
            code = self._process.wait(_PATIENCE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        os.close(self._lifeline)
        self._reader.join(_PATIENCE_S)
        if code >= 0:
            return f"with exit code {code}"
        return f"by {signal.Signals(-code).name}"


def _say_lines(stream: IO[bytes]) -> None:
    """Print what a worker prints, line by line beside the bars."""
    with stream:
        for line in stream:
            Bar.write(line.decode(errors="replace").rstrip("\n"))
