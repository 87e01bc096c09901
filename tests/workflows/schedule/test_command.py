"""The command is started, waited for, and ended with the process that started it."""

import os
import signal
import subprocess
import sys
import time

import pytest

from workflows.schedule.command import CHECKOUT, reply_of, retrain
from workflows.schedule.settings import Settings

PARENT = """
import signal
import sys
from workflows.schedule.command import retrain
from workflows.schedule.settings import Settings
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
retrain(Settings(("mine",), "", "UTC", 0, (), tuple(sys.argv[1:])), "mine", "until=finetune")
"""


def test_it_gets_the_experiment_the_arguments_and_the_step(stand_in, capfd):
    reply = retrain(stand_in.settings, "my/photos.yaml", "until=curate")
    assert stand_in.notes == ["experiment=my/photos.yaml keep=5 until=curate --json"]
    assert (reply.code, reply.outcome, reply.sentence) == (0, "started", "curate is done")
    assert '"outcome": "started"' in capfd.readouterr().out  # for the log


@pytest.mark.parametrize("code", [1, 2, 3, 70, 75, 130])
def test_exit_codes(stand_in, code):
    stand_in.plan(curate={"code": code, "outcome": "x", "sentence": "why"})
    reply = retrain(stand_in.settings, "mine", "until=curate")
    assert (reply.code, reply.sentence) == (code, "why")


def test_what_ends_before_it_can_answer_is_quoted(stand_in):
    stand_in.plan(curate={"code": 2, "error": "there is no such experiment"})
    reply = retrain(stand_in.settings, "mine", "until=curate")
    assert (reply.code, reply.outcome, reply.sentence) == (2, "", "there is no such experiment")


def test_the_last_answer_counts():
    lines = ['{"outcome": "started"}\n', '{"loss": 1}\n', '{"outcome": "promoted"}\n', "bye\n"]
    assert reply_of(0, lines).outcome == "promoted"
    assert reply_of(-9, ["nothing"]).sentence == "the command ended with exit code -9"


@pytest.mark.skipif(sys.platform != "linux", reason="only there a program is between")
def test_a_command_that_cannot_be_started_is_not_a_rejection(stand_in):
    missing = Settings(("mine",), "", "UTC", 0, (), ("/nowhere/python",))
    reply = retrain(missing, "mine")
    assert reply.code == 127
    assert reply.sentence == "/nowhere/python: No such file or directory"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells of a parent's death")
def test_it_ends_with_its_parent(stand_in, number):
    """It is asked once, so that it can store how far it is; a second signal would end it at once."""
    stand_in.plan(finetune={"seconds": 60})
    command = [sys.executable, "-c", PARENT, sys.executable, str(stand_in.script)]
    parent = subprocess.Popen(command, env=os.environ | {"PYTHONPATH": str(CHECKOUT)})
    wait_for(lambda: len(stand_in.notes) == 1)
    parent.send_signal(number)
    parent.wait()
    wait_for(lambda: len(stand_in.notes) > 1)
    time.sleep(0.3)
    assert stand_in.notes[1:] == ["SIGTERM"]


def wait_for(true, seconds=20.0):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)
