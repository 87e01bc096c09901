"""Every engine gives exactly one result for each task, whatever raises or dies."""

import os
import platform
import signal
import subprocess
import sys
import threading
import time
from importlib.util import find_spec
from multiprocessing.connection import Connection
from pathlib import Path
from socket import socketpair
from types import SimpleNamespace
from typing import Any

import pytest

from curate.run.engine import config
from curate.run.engine.attempts import Attempts
from curate.run.engine.config import EngineConfig
from curate.run.engine.on_ray import Actor, most_workers
from curate.run.engine.opened import open_engine
from curate.run.engine.processes import Processes, _give
from curate.run.engine.tasks import ATTEMPTS, TasksFailed, WorkerSpec, values
from curate.run.schema import UserError

TOY = "tests.curate.run.engine.toy"
REPOSITORY = Path(__file__).resolve().parents[4]
NEEDS_RAY = pytest.mark.skipif(find_spec("ray") is None, reason="ray is not installed")
ENGINES = ["inprocess", "processes", pytest.param("ray", marks=NEEDS_RAY)]


@pytest.fixture(scope="module")
def engines(tmp_path_factory):
    """One engine of each kind, opened when it is first asked for: Ray takes seconds to start."""
    opened, stack = {}, []

    def of(name):
        if name not in opened:
            folder = tmp_path_factory.mktemp(name)
            chosen = EngineConfig(name=name, workers=None if name == "inprocess" else 2)
            manager = open_engine(chosen, folder)
            opened[name] = manager.__enter__()
            stack.append(manager)
        return opened[name]

    yield of
    for manager in stack:
        manager.__exit__(None, None, None)


@pytest.fixture
def mapped(engines, tmp_path):
    """Results by the tasks' names, the number of attempts by name, and the sum of the progress."""

    def run(name, tasks):
        counts = []
        spec = WorkerSpec(f"{TOY}:worker", {"folder": str(tmp_path)})
        results = list(engines(name).map(spec, tasks, counts.append))
        assert sorted(result.task for result in results) == sorted(tasks)
        began = {path.name: len(path.read_text().splitlines()) for path in tmp_path.iterdir()}
        return {result.task[0]: result for result in results}, began, sum(counts)

    return run


def plain(count=6):
    return [(f"t{number}", "") for number in range(count)]


@pytest.mark.parametrize("name", ENGINES)
def test_each_task_has_one_result(mapped, name):
    results, began, counted = mapped(name, plain())
    assert {n: result.value for n, result in results.items()} == {
        f"t{n}": f"t{n}" * 2 for n in range(6)
    }
    assert all(result.attempts == 1 and not result.error for result in results.values())
    assert (set(began.values()), counted) == ({1}, 18)


@pytest.mark.parametrize("name", ENGINES)
def test_a_poisoned_task_is_tried_three_times_and_the_others_once(mapped, name):
    tasks = [*plain(), ("bad", "raises"), ("odd", "raises once")]
    results, began, counted = mapped(name, tasks)
    assert results["bad"].error.startswith("ValueError: bad is poison")
    assert results["bad"].attempts == ATTEMPTS
    assert (results["odd"].value, results["odd"].attempts) == ("oddodd", 2)
    assert began == {**dict.fromkeys((f"t{n}" for n in range(6)), 1), "bad": ATTEMPTS, "odd": 2}
    assert counted == 7 * 3  # nothing of an attempt that failed


@pytest.mark.parametrize("name", ENGINES)
def test_what_the_user_has_to_mend_is_tried_once(mapped, name):
    results, began, counted = mapped(name, [*plain(2), ("bad", "refuses")])
    assert (results["bad"].error, results["bad"].refusal, began["bad"]) == ("mend bad", True, 1)
    assert counted == 2 * 3


@pytest.mark.parametrize("name", ENGINES)
def test_exits_and_values_that_cannot_be_sent_are_failures_of_the_task(mapped, name):
    results, began, counted = mapped(
        name, [*plain(2), ("bad", "exits"), ("odd", "gives a function")]
    )
    assert results["bad"].error.startswith("SystemExit: enough")
    assert results["odd"].error.startswith("TypeError: the value of a task, function: ")
    assert began == {"t0": 1, "t1": 1, "bad": ATTEMPTS, "odd": ATTEMPTS}
    assert counted == 2 * 3


@pytest.mark.parametrize("name", ENGINES[1:])
def test_a_worker_that_dies_costs_its_own_task_one_attempt(mapped, name):
    results, began, counted = mapped(name, [("odd", "dies once"), *plain()])
    assert (results["odd"].value, results["odd"].attempts) == ("oddodd", 2)
    assert began == {**dict.fromkeys((f"t{n}" for n in range(6)), 1), "odd": 2}
    assert counted == 21


@pytest.mark.parametrize("name", ENGINES[1:])
def test_a_task_that_always_kills_its_worker_ends_after_three(mapped, name):
    results, began, _ = mapped(name, [("bad", "dies"), *plain()])
    assert (results["bad"].attempts, began["bad"]) == (ATTEMPTS, ATTEMPTS)
    assert results["bad"].error.startswith("its process ended")
    assert sum(not result.error for result in results.values()) == 6
    assert {n for n, count in began.items() if count > 1} == {"bad"}


@pytest.mark.parametrize(("how", "attempts"), [("dies late once", 2), ("dies late", ATTEMPTS)])
@pytest.mark.parametrize("name", ENGINES[1:])
def test_the_last_task_ends_when_its_worker_dies_while_others_are_idle(
    engines, tmp_path, name, how, attempts
):
    spec, found = WorkerSpec(f"{TOY}:worker", {"folder": str(tmp_path)}), []
    tasks = [("odd", how), ("quick", "")]
    mapping = threading.Thread(
        target=lambda: found.extend(engines(name).map(spec, tasks)), daemon=True
    )
    mapping.start()
    mapping.join(30.0)
    assert not mapping.is_alive()
    by_name = {result.task[0]: result for result in found}
    assert (len(found), by_name["quick"].value, by_name["odd"].attempts) == (
        2,
        "quick" * 2,
        attempts,
    )
    assert by_name["odd"].error.startswith("its process ended") == (how == "dies late")


@pytest.mark.parametrize("name", ENGINES[1:])
def test_lines_and_threads(mapped, name, capsys):
    results, _, _ = mapped(name, [("a", "prints"), ("OMP", "environment")])
    assert results["OMP"].value == {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    assert "a line of a" in capsys.readouterr().out.splitlines()


@pytest.mark.parametrize("name", ENGINES)
def test_a_worker_that_cannot_be_built_is_no_tasks_fault(engines, tmp_path, name):
    spec = WorkerSpec(f"{TOY}:worker", {"folder": str(tmp_path), "refuse": True})
    with pytest.raises(UserError, match="not like this"):
        list(engines(name).map(spec, plain()))
    with pytest.raises((RuntimeError, AttributeError)):
        list(engines(name).map(WorkerSpec(f"{TOY}:nothing"), plain()))


@pytest.mark.parametrize("name", ENGINES[1:])
def test_workers_that_die_before_they_are_built_are_given_up(engines, name):
    with pytest.raises(RuntimeError, match=r"3 .* in a row ended before they were built"):
        list(engines(name).map(WorkerSpec(f"{TOY}:dies_unbuilt"), plain()))


def test_there_are_no_more_processes_than_tasks(tmp_path, monkeypatch):
    started = []
    popen = subprocess.Popen

    def counted(*args, **options):
        started.append(args)
        return popen(*args, **options)

    monkeypatch.setattr(subprocess, "Popen", counted)
    spec = WorkerSpec(f"{TOY}:worker", {"folder": str(tmp_path)})
    assert len(list(Processes(50).map(spec, plain(2)))) == 2
    assert list(Processes(50).map(spec, [])) == []
    assert len(started) == 2


@NEEDS_RAY
def test_there_are_no_more_actors_than_gpus_for_them():
    assert [most_workers(64, gpus, 8.0) for gpus in (0, 1, 3, 0.5, 0.4, 0.1)] == [
        64, 8, 2, 16, 16, 64,
    ]  # fmt: skip
    assert most_workers(4, 1, 0.0) == 1


@NEEDS_RAY
def test_only_workers_that_use_gpus_ask_for_them(engines, tmp_path, monkeypatch):
    engine, asked = engines("ray"), []
    monkeypatch.setattr(engine, "_gpus", 1.0)
    start = engine._start

    def started(gpus):
        asked.append(gpus)
        return start(0.0)

    monkeypatch.setattr(engine, "_start", started)
    for uses_gpu in (False, True):
        spec = WorkerSpec(f"{TOY}:worker", {"folder": str(tmp_path)}, uses_gpu)
        assert len(list(engine.map(spec, plain(2)))) == 2
    assert asked == [0.0, 0.0, 1.0]


@pytest.mark.parametrize("absent", ["run", "cwd"])
def test_a_node_without_the_runs_folder_is_named(tmp_path, absent):
    folders = {"run": str(tmp_path), "cwd": str(Path.cwd()), absent: str(tmp_path / "not here")}
    outcome = Actor(folders["cwd"], [], folders["run"]).build(WorkerSpec("no:matter"))
    assert outcome.refusal
    assert f"{tmp_path / 'not here'} is not on node {platform.node()}" in outcome.error


@NEEDS_RAY
def test_any_error_of_ray_ends_the_actor_and_counts_as_an_attempt(engines, tmp_path, monkeypatch):
    import ray
    from ray.exceptions import RayError

    get, kill, raised, killed = ray.get, ray.kill, [], []

    def failing(asked):
        outcome = get(asked)
        if outcome.value == "t1t1" and not raised:
            raised.append(asked)
            raise RayError("out of reach")
        return outcome

    monkeypatch.setattr(ray, "get", failing)
    monkeypatch.setattr(ray, "kill", lambda actor: [killed.append(actor), kill(actor)])
    spec = WorkerSpec(f"{TOY}:worker", {"folder": str(tmp_path)})
    results = {r.task[0]: r for r in engines("ray").map(spec, plain(3))}
    assert {n: r.value for n, r in results.items()} == {f"t{n}": f"t{n}" * 2 for n in range(3)}
    assert results["t1"].attempts == 2
    assert len(killed) == 3


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until(holds, seconds=20.0):
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_worker_that_is_killed_from_outside_is_replaced(tmp_path):
    spec = WorkerSpec(f"{TOY}:worker", {"folder": str(tmp_path)})
    (tmp_path / "slow").write_text("")

    def kill():
        wait_until(lambda: (tmp_path / "odd").is_file() and (tmp_path / "odd").read_text())
        os.kill(int((tmp_path / "odd").read_text().split()[0]), signal.SIGKILL)

    thread = threading.Thread(target=kill)
    thread.start()
    # The second attempt is as slow as the first, and ends when the map is closed.
    results = Processes(2).map(spec, [("odd", "slow"), *plain(3)])
    found = [next(results).task[0] for _ in range(3)]
    wait_until(lambda: len((tmp_path / "odd").read_text().split()) == 2)
    results.close()
    thread.join()
    assert sorted(found) == ["t0", "t1", "t2"]
    for pid in (tmp_path / "odd").read_text().split():
        wait_until(lambda pid=pid: not is_running(int(pid)))


def test_an_idle_worker_that_dies_as_well_costs_no_task_an_attempt(tmp_path):
    spec = WorkerSpec(f"{TOY}:worker", {"folder": str(tmp_path)})
    results = Processes(2).map(spec, [("odd", "dies late once"), ("quick", "")])
    assert next(results).task[0] == "quick"
    wait_until(lambda: (tmp_path / "odd").is_file() and (tmp_path / "odd").read_text())
    idle, busy = (int((tmp_path / name).read_text()) for name in ("quick", "odd"))
    os.kill(idle, signal.SIGKILL)
    wait_until(lambda: not is_running(idle) and not is_running(busy))
    (result,) = results
    assert (result.value, result.attempts) == ("oddodd", 2)


def test_a_task_that_cannot_be_sent_to_a_dead_worker_waits_again():
    left = Attempts([("a", "")])
    ours, theirs = socketpair()
    theirs.close()
    with Connection(ours.detach()) as connection:
        dead: Any = SimpleNamespace(is_built=True, place=None, connection=connection)
        _give([dead], left)
    assert (dead.place, list(left.waiting), left.begun) == (None, [0], {0: 0})


def test_workers_end_when_their_driver_is_killed(tmp_path):
    code = (
        "from curate.run.engine.processes import Processes\n"
        "from curate.run.engine.tasks import WorkerSpec\n"
        f"spec = WorkerSpec('{TOY}:worker', {{'folder': {str(tmp_path)!r}}})\n"
        "list(Processes(2).map(spec, [('a', 'slow'), ('b', 'slow')]))\n"
    )
    driver = subprocess.Popen([sys.executable, "-c", code], cwd=REPOSITORY)
    wait_until(lambda: all((tmp_path / n).is_file() and (tmp_path / n).read_text() for n in "ab"))
    pids = [int((tmp_path / name).read_text()) for name in "ab"]
    assert all(map(is_running, pids))
    driver.kill()
    driver.wait()
    wait_until(lambda: not any(map(is_running, pids)), 5.0)


def test_ray_that_is_not_installed_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(config, "find_spec", lambda name: None)
    with (
        pytest.raises(UserError, match=r'pip install "darkroom\[ray\]"'),
        open_engine(EngineConfig(name="ray"), tmp_path),
    ):
        pass


def test_values_are_all_or_say_which_failed(engines, tmp_path):
    spec = WorkerSpec(f"{TOY}:worker", {"folder": str(tmp_path)})
    engine = engines("inprocess")
    assert values(engine.map(spec, plain(2)), "toys") == ["t0t0", "t1t1"]
    with pytest.raises(TasksFailed, match=r"toys: 1 of 3 tasks failed in 3 attempts .*poison"):
        values(engine.map(spec, [*plain(2), ("bad", "raises")]), "toys")
    with pytest.raises(UserError, match="mend bad"):
        values(engine.map(spec, [("worse", "raises"), ("bad", "refuses")]), "toys")
