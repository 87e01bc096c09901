"""The engine of actors on a Ray cluster, or on one that is started on this machine alone.

Ray itself asks 169.254.169.254 and metadata.google.internal where it runs, when a cluster is started, also with its
usage statistics off (``ray.dashboard.modules.usage_stats``). A local cluster here has no dashboard and binds to
127.0.0.1 alone: ``RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=0`` makes it do so on Linux, and leaves out its look at 8.8.8.8.
Ray writes a token to ``~/.ray/auth_token``, and other users of this machine cannot reach the cluster without it.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from curate.run import cores, remote
from curate.run.engine.attempts import Attempts
from curate.run.engine.config import EngineConfig, refuse_absent
from curate.run.engine.processes import ENVIRONMENT
from curate.run.engine.tasks import (
    Progress,
    Result,
    Worker,
    WorkerSpec,
    in_words,
    sendable,
)
from curate.run.progress import Bar
from curate.run.schema import UserError

_LOCAL = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
_STORE_BYTES = 128 << 20  # tasks and results are some hundred bytes
_LONGEST_FOLDER = (
    24  # of a path: Ray's sockets lie 80 characters below it, and their paths end at 107
)
_OF_HUB = ("HF_ENDPOINT", "HF_HUB_OFFLINE")  # from where models come, or that nothing is fetched
_SAY_AFTER_S = 30.0  # that no actor has started yet


def _environment() -> dict[str, str]:
    """What each node has to know of this process's environment, to read the same files.

    Nothing secret: Ray shows it to whoever reaches the cluster.
    """
    hub = {name: os.environ[name] for name in _OF_HUB if os.environ.get(name)}
    known = {**remote.public_environment(), **hub}
    if secret := sorted(name for name, value in known.items() if remote.holds_login(value)):
        Bar.write(
            f"engine=ray: {' and '.join(secret)} holds a user or a password, which Ray would show, and is not given to "
            "the cluster's machines; set it on each of them"
        )
    return {**ENVIRONMENT, **{name: known[name] for name in known if name not in secret}}


@contextmanager
def on_ray(config: EngineConfig, folder: Path, shared: Path) -> Iterator[OnRay]:
    """Connect to the cluster of ``engine.address``, or start one on this machine that ends with the block.

    Args:
        config: of the engine.
        folder: for Ray's sockets and logs, if its path is short enough; they are deleted afterwards.
        shared: a folder of the run, which each node has to have; it is made.

    Raises:
        UserError: Ray is not installed, or the cluster is not there or lacks the GPUs.
    """
    refuse_absent(config)
    if config.address is None:
        os.environ.update(_LOCAL)
        os.environ.setdefault("RAY_AUTH_MODE", "token")
    import ray  # pyright: ignore[reportMissingImports]

    workers = config.workers or cores.usable()
    shared.mkdir(parents=True, exist_ok=True)
    scratch = None
    if config.address is None:
        folder.mkdir(parents=True, exist_ok=True)
        short = len(str(folder.absolute())) <= _LONGEST_FOLDER
        scratch = tempfile.mkdtemp(prefix="ray-", dir=folder.absolute() if short else None)
        options: dict[str, Any] = {
            "num_cpus": workers,
            "object_store_memory": _STORE_BYTES,
            "include_dashboard": False,
            "_temp_dir": scratch,
        }
    else:
        options = {"address": config.address}
    try:
        try:
            ray.init(
                log_to_driver=False,
                logging_level=logging.ERROR,
                configure_logging=False,
                runtime_env={"env_vars": _environment()},
                **options,
            )
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise UserError(
                f"engine.address={config.address}: Ray cannot be reached or started ({error}); leave "
                "engine.address out to start it on this machine"
            ) from error
        _refuse_too_many_gpus(config, ray.nodes())
        at_most = config.workers or max(1, int(ray.cluster_resources().get("CPU", 1)))
        yield OnRay(at_most, config.gpus_per_worker, shared)
    finally:
        ray.shutdown()
        if scratch is not None:
            shutil.rmtree(scratch, ignore_errors=True)


def _refuse_too_many_gpus(config: EngineConfig, nodes: Sequence[dict[str, Any]]) -> None:
    """Refuse workers that no node has the GPUs for: Ray waits for such a node without end.

    Raises:
        UserError: says how many there are and what to type.
    """
    gpus = config.gpus_per_worker
    most = max((node["Resources"].get("GPU", 0.0) for node in nodes if node["Alive"]), default=0.0)
    if gpus <= most:
        return
    place = (
        "this machine has"
        if config.address is None
        else f"of the nodes of engine.address={config.address} none has more than"
    )
    fitting = f"engine.gpus_per_worker={most:g}, or " if most else ""
    raise UserError(
        f"engine.gpus_per_worker={gpus:g}, and {place} {most:g} GPUs; type {fitting}engine.gpus_per_worker=0 "
        "to compute without"
    )


class OnRay:
    """See ``tasks.Engine``; the bar moves whenever a task ends."""

    def __init__(self, workers: int, gpus_per_worker: float, shared: Path) -> None:
        """An engine of the cluster that Ray is connected to.

        Args:
            workers: how many actors there are at once at most, each of one core.
            gpus_per_worker: of those that use one, see ``WorkerSpec``.
            shared: see ``on_ray``.
        """
        self._workers, self._gpus, self._shared = workers, gpus_per_worker, shared.absolute()

    def map(
        self, spec: WorkerSpec, tasks: Sequence[Any], progress: Progress = lambda count: None
    ) -> Iterator[Result]:
        """See ``tasks.Engine.map``.

        Raises:
            UserError: raised while a worker was built.
            RuntimeError: anything else was, or actors end again and again before they begin a task.
        """
        import ray  # pyright: ignore[reportMissingImports]
        from ray.exceptions import RayError  # pyright: ignore[reportMissingImports]

        gpus = self._gpus if spec.uses_gpu else 0.0
        workers = most_workers(self._workers, gpus, ray.cluster_resources().get("GPU", 0.0))
        left = Attempts(tasks)
        actors: dict[Any, _Running] = {}  # by what each was asked for
        started, said = time.monotonic(), False
        try:
            while left.waiting or any(actor.place is not None for actor in actors.values()):
                busy = sum(actor.place is not None for actor in actors.values())
                while len(actors) < min(workers, len(left.waiting) + busy):
                    actor = _Running(self._start(gpus))
                    actors[actor.handle.build.remote(spec)] = actor
                done, _ = ray.wait(list(actors), num_returns=1, timeout=_SAY_AFTER_S)
                if not done and not said and not any(a.is_built for a in actors.values()):
                    Bar.write(
                        f"engine=ray: no worker has started after {time.monotonic() - started:.0f} s; it waits for "
                        "cores (and engine.gpus_per_worker) to become free in the cluster"
                    )
                    said = True
                for asked in done:
                    actor = actors.pop(asked)
                    try:
                        outcome = ray.get(asked)
                    except RayError as error:
                        ray.kill(actor.handle)  # it may be only out of reach, and would write on
                        how = f"({' '.join(str(error).split())})"
                        result = left.worker_ended(actor.place, actor.is_built, how)
                    else:
                        result = _heard(actor, outcome, left, progress)
                        actors[_asked_next(actor, left)] = actor
                    if result is not None:
                        yield result
        finally:
            for actor in actors.values():
                ray.kill(actor.handle)

    def _start(self, gpus: float) -> Any:
        import ray  # pyright: ignore[reportMissingImports]

        kind = ray.remote(num_cpus=1, num_gpus=gpus, max_restarts=0, max_task_retries=0)
        return kind(Actor).remote(str(Path.cwd()), list(sys.path), str(self._shared))


def most_workers(workers: int, gpus_per_worker: float, gpus: float) -> int:
    """How many of ``workers`` a cluster with ``gpus`` GPUs has room for; one at least, which waits for it.

    A share of a GPU is on one device, a number above 1 is of whole ones.

    >>> most_workers(64, 1, 8), most_workers(64, 0.4, 2), most_workers(64, 0, 0), most_workers(4, 1, 0)
    (8, 4, 64, 1)
    """
    if gpus_per_worker <= 0:
        return workers
    fitting = (
        int(gpus) * int(1 / gpus_per_worker + 1e-9)
        if gpus_per_worker < 1
        else int(gpus / gpus_per_worker)
    )
    return max(1, min(workers, fitting))


@dataclass
class _Running:
    """An actor: the place of its task, None where it has none, and whether it was built."""

    handle: Any
    place: int | None = None
    is_built: bool = False


@dataclass(frozen=True)
class _Outcome:
    """What an actor answers: a value or an error, with what it printed meanwhile and its progress."""

    value: Any = None
    error: str = ""
    refusal: bool = False
    said: str = ""
    counted: int = 0


def _heard(actor: _Running, outcome: _Outcome, left: Attempts, progress: Progress) -> Result | None:
    """Take an answer."""
    for line in outcome.said.splitlines():
        Bar.write(line)
    if actor.place is None:
        if outcome.error:
            said = outcome.error
            raise (
                UserError(said)
                if outcome.refusal
                else RuntimeError(f"a worker cannot be built: {said}")
            )
        actor.is_built = True
        return None
    if outcome.error:
        return left.failed(actor.place, outcome.error, outcome.refusal)
    progress(outcome.counted)
    return left.done(actor.place, outcome.value)


def _asked_next(actor: _Running, left: Attempts) -> Any:
    """Ask an actor for the next task, or to wait for one that has to be tried again."""
    if not left.waiting:
        actor.place = None
        return actor.handle.wait.remote()
    actor.place = left.begin()
    return actor.handle.attempt.remote(left.tasks[actor.place])


class Actor:
    """A worker in a process of Ray's; what it raises and prints comes back as an answer."""

    def __init__(self, cwd: str, path: list[str], shared: str) -> None:
        """Go to the driver's folder; ``shared`` is one of the run's. Both are absolute."""
        self._absent = [folder for folder in (cwd, shared) if not Path(folder).is_dir()]
        if Path(cwd).is_dir():
            os.chdir(cwd)
        sys.path[:] = list(dict.fromkeys([*path, *sys.path]))
        self._built: AbstractContextManager[Worker] | None = None
        self._worker: Worker | None = None

    def build(self, spec: WorkerSpec) -> _Outcome:
        """Build the worker, unless relative paths or the run's would mean something else on this node."""
        if self._absent:
            return _Outcome(
                error=f"engine=ray: {self._absent[0]} is not on node {platform.node()}; run.root has to be on a "
                "file system that all nodes share, and so has the folder in which the command is typed",
                refusal=True,
            )

        def build() -> None:
            self._built = spec.build()
            self._worker = self._built.__enter__()

        return _answer(build)

    def attempt(self, task: Any) -> _Outcome:
        """Carry out a task."""
        counts: list[int] = []
        assert self._worker is not None
        worker = self._worker
        outcome = _answer(lambda: worker(task, counts.append))
        return _Outcome(outcome.value, outcome.error, outcome.refusal, outcome.said, sum(counts))

    def wait(self) -> _Outcome:
        """Wait until there is something to do again."""
        time.sleep(0.2)
        return _Outcome()


def _answer(work: Any) -> _Outcome:
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            value = work()
            sendable(value)
        except (Exception, SystemExit) as error:
            words, refusal = in_words(error)
            return _Outcome(error=words, refusal=refusal, said=said.getvalue())
    return _Outcome(value, said=said.getvalue())
