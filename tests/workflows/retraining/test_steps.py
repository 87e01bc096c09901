"""A step's process: its exit code, who gets signals, and what is left of it when the parent is killed."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from curate.run.locks import locked
from curate.run.schema import Busy
from workflows.retraining import steps

ROOT = Path(__file__).resolve().parents[3]
PARENT = """
import sys
from pathlib import Path
from curate.run.locks import locked
from workflows.retraining import steps
with locked(Path(sys.argv[1]), "run.name") as lock:
    try:
        code = steps.run([sys.executable, *sys.argv[2:]], lock, {"SAID": "hello"})
    except KeyboardInterrupt as asked:
        print("interrupted", asked, flush=True)
        sys.exit(130)
sys.exit(code)
"""
COUNTS = """
import os, signal, sys, time
from pathlib import Path
counted = []
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
    signal.signal(number, lambda n, _: counted.append(signal.Signals(n).name))
Path(sys.argv[1]).write_text(str(os.getpid()))
while not counted:
    time.sleep(0.01)
time.sleep(0.3)
Path(sys.argv[1]).write_text(" ".join(counted))
sys.exit(130)
"""
LAUNCHER = """
import subprocess, sys
subprocess.Popen([sys.executable, "-c", sys.argv[2], sys.argv[1]])
"""
SLEEPS = """
import os, sys, time
from pathlib import Path
Path(sys.argv[1]).write_text(str(os.getpid()))
time.sleep(60)
"""


def waited(condition, seconds=20):
    """The first true value of a condition."""
    give_up = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < give_up
        time.sleep(0.01)
    return found


def content(path):
    return path.read_text() if path.exists() else ""


@pytest.fixture
def start(tmp_path):
    """Start a parent that runs a Python program as a step, under the lock of ``tmp_path``."""
    started = []

    def begin(program, *arguments):
        process = subprocess.Popen(
            [sys.executable, "-c", PARENT, str(tmp_path), "-c", program, *map(str, arguments)],
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield begin
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("code", [0, 1, 2, 3, 70, 75])
def test_the_exit_code_is_passed_on(code, capfd):
    program = f"import os, sys; print(os.environ['SAID']); sys.exit({code})"
    assert steps.run([sys.executable, "-c", program], None, {"SAID": "hello"}) == code
    assert capfd.readouterr().out == "hello\n"


def test_a_step_that_is_killed_is_no_interruption():
    program = "import os; os.kill(os.getpid(), 9)"
    assert steps.run([sys.executable, "-c", program], None, {}) == -signal.SIGKILL


@pytest.mark.parametrize("end", ["sys.exit(130)", "os.kill(os.getpid(), 15)"])
def test_a_step_that_somebody_interrupted_interrupts(end):
    before = {number: signal.getsignal(number) for number in steps._SIGNALS}
    with pytest.raises(KeyboardInterrupt, match="a step was interrupted"):
        steps.run([sys.executable, "-c", f"import os, sys; {end}"], None, {})
    assert before == {number: signal.getsignal(number) for number in steps._SIGNALS}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_reaches_all_of_the_step_once(start, tmp_path, number):
    """Also behind a launcher that has left; the parent waits for what it left behind."""
    note = tmp_path / "note"
    parent = start(LAUNCHER, note, COUNTS)
    waited(lambda: content(note))
    parent.send_signal(number)
    said, _ = parent.communicate(timeout=20)
    assert content(note) == number.name
    assert said == f"interrupted {number.name}\n"
    assert parent.returncode == 130


def test_a_signal_before_the_step_has_started_is_handed_on(monkeypatch, tmp_path):
    real = subprocess.Popen

    def interrupted(*arguments, **options):
        os.kill(os.getpid(), signal.SIGTERM)
        return real(*arguments, **options)

    monkeypatch.setattr(subprocess, "Popen", interrupted)
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt, match="SIGTERM"):
        steps.run([sys.executable, "-c", "import time; time.sleep(60)"], None, {})
    assert time.monotonic() - began < 30


def test_what_a_launcher_leaves_is_waited_for_and_holds_the_lock(start, tmp_path):
    note = tmp_path / "note"
    parent = start(LAUNCHER, note, SLEEPS)
    orphan = int(waited(lambda: content(note)))
    with pytest.raises(Busy), locked(tmp_path):
        pass
    assert parent.poll() is None
    os.kill(orphan, signal.SIGKILL)
    parent.communicate(timeout=20)
    assert parent.returncode == 0
    with locked(tmp_path):
        pass


def test_an_orphan_holds_the_lock_and_is_named_until_it_ends(start, tmp_path):
    note = tmp_path / "note"
    parent = start(SLEEPS, note)
    orphan = int(waited(lambda: content(note)))
    parent.kill()
    parent.wait()
    try:
        with pytest.raises(Busy, match=rf"process {orphan} \(") as refused, locked(tmp_path):
            pass
        assert f"process {parent.pid} " not in str(refused.value)
    finally:
        os.kill(orphan, signal.SIGKILL)

    def is_free():
        with suppress(Busy), locked(tmp_path):
            return True

    assert waited(is_free)


def test_the_line_of_the_lock_names_both(start, tmp_path):
    note = tmp_path / "note"
    parent = start(SLEEPS, note)
    child = int(waited(lambda: content(note)))
    lines = [json.loads(line) for line in (tmp_path / ".lock").read_text().splitlines()]
    assert [line["pid"] for line in lines] == [parent.pid, child]
    os.kill(child, signal.SIGKILL)
    assert parent.wait(20) != 0


def test_a_program_that_is_not_there_is_the_user_s_to_mend():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(FileNotFoundError, match="no_such_program"):
        steps.run(["no_such_program"], None, {})
    assert signal.getsignal(signal.SIGTERM) == before


def test_processes_that_do_not_leave_are_ended(monkeypatch, tmp_path):
    monkeypatch.setattr(steps, "_PATIENCE_S", 0.3)
    note = tmp_path / "note"
    assert steps.run([sys.executable, "-c", LAUNCHER, str(note), SLEEPS], None, {}) == 0
    orphan = content(note)
    assert orphan == "" or not steps._is_alive(int(orphan))
