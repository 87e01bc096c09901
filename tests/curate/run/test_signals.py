"""What asks a command to end: SIGTERM and SIGUSR1 as Ctrl-C, a second one at once."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from curate.run import cli as command
from curate.run.signals import StopRequest

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGUSR1])
def test_a_command_ends_with_130_and_hands_the_signal_back(sent, capsys):
    before = signal.getsignal(sent)
    with pytest.raises(SystemExit) as leaving:
        command.run(lambda: os.kill(os.getpid(), sent))
    assert leaving.value.code == 130
    said = capsys.readouterr().err.strip()
    assert said == f"interrupted: {sent.name}; the same command again resumes"
    assert signal.getsignal(sent) is before


def run(code, **environment):
    return subprocess.run(
        [sys.executable, "-c", f"import os, signal, time\n{code}"],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )


DEFERRED = """
from curate.run.signals import StopRequest
stop = StopRequest()
with stop.deferred():
    os.kill(os.getpid(), signal.SIGTERM)
    print(stop.made, flush=True)
    {pause}
    os.kill(os.getpid(), signal.SIGINT)
    print("still here")
"""


def test_a_second_signal_ends_at_once():
    done = run(DEFERRED.format(pause=""))
    assert (done.returncode, done.stdout) == (130, "SIGTERM\n")


def test_a_launchers_copy_of_the_signal_is_no_second_one():
    copied = run(DEFERRED.format(pause=""), TORCHELASTIC_RUN_ID="1")
    assert (copied.returncode, copied.stdout) == (0, "SIGTERM\nstill here\n")
    later = run(DEFERRED.format(pause="stop._at -= 3"), TORCHELASTIC_RUN_ID="1")
    assert (later.returncode, later.stdout) == (130, "SIGTERM\n")


def test_a_command_that_does_not_end_ends_at_the_second_signal():
    code = (
        "from curate.run import cli\n"
        "def stubborn():\n"
        "    try:\n"
        "        os.kill(os.getpid(), signal.SIGTERM)\n"
        "    finally:\n"
        "        os.kill(os.getpid(), signal.SIGTERM)\n"
        "        print('still here')\n"
        "cli.run(stubborn)"
    )
    done = run(code)
    assert (done.returncode, done.stdout) == (130, "")


def test_without_a_signal_nothing_was_asked():
    with (stop := StopRequest()).deferred():
        assert stop.made is None
