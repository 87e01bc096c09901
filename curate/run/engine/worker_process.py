"""A process of ``processes.Processes``: ``python -m curate.run.engine.worker_process SOCKET PIPE``.

It takes a ``WorkerSpec`` from the socket, then one task after another, and sends pairs of a word and what it is about.
"""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from multiprocessing.connection import Connection
from threading import Thread

from curate.run.engine.tasks import Worker, WorkerSpec, in_words, sendable

READY = "ready"
"""The worker is built, or has failed to be: ``BROKEN``, with the error and whether it is a ``UserError``."""
BROKEN = "broken"
PROGRESS = "progress"
"""With what was done of the task since the last such message."""
DONE = "done"
"""With the task's value; or ``FAILED``, as ``BROKEN``."""
FAILED = "failed"


def main(socket: int, pipe: int) -> None:
    """Work until the socket ends; end at once when the pipe does."""
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # Ctrl-C is the starting process's, which ends this one
    for descriptor in (socket, pipe):
        os.set_inheritable(descriptor, False)
    Thread(target=_end_with, args=(pipe,), daemon=True).start()
    with (
        Connection(socket) as connection,
        suppress(EOFError, BrokenPipeError, ConnectionResetError),
    ):
        _work(connection)


def _work(connection: Connection) -> None:
    try:
        spec: WorkerSpec = connection.recv()
        built = spec.build()
        worker = built.__enter__()
    except EOFError:
        raise
    except Exception as error:
        connection.send((BROKEN, in_words(error)))
        return
    try:
        connection.send((READY, None))
        while True:
            connection.send(_attempt(worker, connection.recv(), connection))
    finally:
        built.__exit__(None, None, None)


def _attempt(worker: Worker, task: object, connection: Connection) -> tuple[str, object]:
    def progress(count: int) -> None:
        connection.send((PROGRESS, count))

    try:
        return DONE, sendable(worker(task, progress))
    except (Exception, SystemExit) as error:
        return FAILED, in_words(error)


def _end_with(pipe: int) -> None:
    os.read(pipe, 1)
    os._exit(1)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
