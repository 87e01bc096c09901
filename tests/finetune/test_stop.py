"""A signal stops a training with a checkpoint; resumed, it ends with the bytes of one that never stopped."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest
import torch

import finetune.evaluating
import finetune.loop
from curate.run import checksums
from finetune.checkpoint import list_checkpoints
from finetune.training import Interrupted
from tests.finetune.conftest import command, digests, losses, start

ROOT = Path(__file__).resolve().parents[2]
EVERY = {"heldout.every": 8, "checkpoint.every": 16, "log.every": 12, "train.samples": 40}


@pytest.fixture
def whole_run(make_config, run_training, tmp_path):
    config = make_config(**EVERY)
    run_training(config)
    result = losses(config), digests(config)
    config.folder.rename(tmp_path / "whole")
    return result


@pytest.fixture
def signal_at(monkeypatch):
    """Send this process a signal during call ``number`` of a function of the loop or of the evaluations."""

    def arrange(name: str, number: int, sent: signal.Signals) -> None:
        module = finetune.evaluating if name == "measure" else finetune.loop
        real, calls = getattr(module, name), 0

        def signalled(*args, **options):
            nonlocal calls
            calls += 1
            if calls == number:
                os.kill(os.getpid(), sent)
            return real(*args, **options)

        monkeypatch.setattr(module, name, signalled)

    return arrange


@pytest.mark.parametrize(
    ("name", "number", "sent", "step"),
    [
        pytest.param("update", 1, signal.SIGTERM, 1, marks=pytest.mark.slow),
        ("update", 5, signal.SIGUSR1, 5),  # in the middle of a window of the log
        pytest.param(
            "measure", 1, signal.SIGTERM, 0, marks=pytest.mark.slow
        ),  # the base model's: nothing to store yet
        pytest.param(
            "measure", 3, signal.SIGTERM, 2, marks=pytest.mark.slow
        ),  # an evaluation without a checkpoint
        ("measure", 6, signal.SIGINT, 4),  # the second half of one before a checkpoint
        pytest.param("measure", 11, signal.SIGUSR1, 10, marks=pytest.mark.slow),  # the last
        pytest.param("save", 1, signal.SIGTERM, 4, marks=pytest.mark.slow),
        ("save", 3, signal.SIGTERM, 10),
    ],
)
def test_a_signal_at_any_moment_changes_no_byte_in_the_end(
    make_config, run_training, whole_run, signal_at, monkeypatch, name, number, sent, step
):
    config = make_config(**EVERY)
    with monkeypatch.context():
        signal_at(name, number, sent)
        with pytest.raises(Interrupted):
            run_training(config)
        monkeypatch.undo()
    stored = list_checkpoints(config.folder)
    assert (stored[-1].step if stored else 0) == step
    if stored:
        assert (config.folder / "checkpoints" / "last").readlink().name == stored[-1].path.name
        assert stored[-1].interrupted == (name != "save")
    run_training(config)
    assert losses(config) == whole_run[0]
    assert digests(config) == whole_run[1]
    links = config.folder / "checkpoints"
    assert (links / "last").readlink().name == "step-00000010"
    assert not list(config.folder.rglob("*.part"))


@pytest.mark.quick_cases(2)
@pytest.mark.parametrize(
    ("name", "number", "damaged", "from_step"),
    [
        ("update", 6, ["step-00000006"], 4),
        ("update", 9, ["step-00000009", "step-00000008"], 4),
        ("measure", 8, ["step-00000006"], 4),  # interrupted in an evaluation without a checkpoint
        ("measure", 11, ["step-00000010"], 8),
    ],
)
def test_damage_to_the_checkpoint_of_a_stop_changes_no_byte_in_the_end(
    make_config, run_training, whole_run, signal_at, monkeypatch, name, number, damaged, from_step
):
    config = make_config(**EVERY)
    signal_at(name, number, signal.SIGTERM)
    with pytest.raises(Interrupted):
        run_training(config)
    monkeypatch.undo()
    for folder in damaged:
        path = config.folder / "checkpoints" / folder / "state.safetensors"
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.unlink()
        path.write_bytes(content)
    real, steps = finetune.loop.update, []

    def update(run, batch):
        steps.append(run.progress.step)
        return real(run, batch)

    monkeypatch.setattr(finetune.loop, "update", update)
    run_training(config)
    assert steps == list(range(from_step, 10))
    assert losses(config) == whole_run[0]
    assert digests(config) == whole_run[1]
    assert checksums.damaged(config.folder) == []


@pytest.mark.slow
def test_stopped_again_and_again_it_still_ends_the_same(
    make_config, run_training, whole_run, signal_at, monkeypatch
):
    config = make_config(**EVERY)
    for step in range(1, 10):
        signal_at("update", 1, signal.SIGTERM)
        with pytest.raises(Interrupted):
            run_training(config)
        monkeypatch.undo()
        stored = list_checkpoints(config.folder)
        assert stored[-1].step == step
        assert [found.step for found in stored if found.interrupted] == [step]
        assert [found.step for found in stored if not found.interrupted] == [4, 8][
            : (step - 1) // 4
        ]
    run_training(config)
    assert losses(config) == whole_run[0]
    assert digests(config) == whole_run[1]


def test_a_checkpoint_of_an_interruption_is_not_kept_or_judged_best(
    make_config, run_training, signal_at, monkeypatch
):
    config = make_config(**EVERY | {"checkpoint.keep": 1})
    signal_at("update", 6, signal.SIGTERM)
    with pytest.raises(Interrupted):
        run_training(config)
    monkeypatch.undo()
    stored = list_checkpoints(config.folder)
    assert [(found.step, found.interrupted) for found in stored] == [(4, False), (6, True)]
    assert stored[-1].heldout is None
    assert (config.folder / "checkpoints" / "best").readlink().name == "step-00000004"


def test_what_was_not_logged_goes_to_the_first_of_other_processes():
    from types import SimpleNamespace

    from finetune.resuming import restored

    unlogged = {"losses": [0.1, 0.7], "steps": 3, "seconds": 0.5}
    for processes, expected in ((2, [0.1, 0.7]), (1, [0.8]), (3, [0.8, 0.0, 0.0])):
        for rank, loss in enumerate(expected):
            there = SimpleNamespace(num_processes=processes, process_index=rank, device="cpu")
            window = restored(unlogged, there)
            torch.testing.assert_close(window.loss, torch.tensor(loss))
            assert (window.steps, window.seconds) == (3, 0.5)


def wait_for_updates(config, process):
    """Until two lines more are logged than when this was called."""
    deadline, enough = time.monotonic() + 600, len(losses(config)) + 2
    while len(losses(config)) < enough:
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.mark.parametrize(
    "sent", [signal.SIGTERM, pytest.param(signal.SIGUSR1, marks=pytest.mark.slow)]
)
def test_the_command_ends_with_130_and_goes_on(make_config, run_training, tmp_path, sent):
    config = make_config(**{"train.samples": 4_000, "log.every": 8})
    config.heldout.every = config.checkpoint.every = 100_000
    arguments = [str(ROOT / "finetune" / "train.py"), *command(config)]
    first = start(arguments, tmp_path)
    wait_for_updates(config, first)
    first.send_signal(sent)
    output = first.communicate(timeout=60)[0]
    assert first.returncode == 130, output
    [stored] = list_checkpoints(config.folder)
    assert stored.interrupted
    assert f"a checkpoint after {stored.samples_seen} samples is stored; the same" in output
    assert "Traceback" not in output


@pytest.mark.slow
def test_a_signal_before_the_first_update_ends_with_130(make_config, tmp_path):
    """While torch loads, or pictures are encoded, there is nothing to store."""
    config = make_config(train=3_000)
    process = start([str(ROOT / "finetune" / "train.py"), *command(config)], tmp_path)
    deadline = time.monotonic() + 60
    while not (config.folder / ".lock").exists():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.01)
    time.sleep(0.2)
    process.send_signal(signal.SIGTERM)
    output = process.communicate(timeout=60)[0]
    assert process.returncode == 130, output
    assert "interrupted: SIGTERM; the same command again resumes" in output
    assert not (config.folder / "checkpoints").exists()


@pytest.mark.slow
def test_torchrun_passes_the_signal_on_and_all_processes_stop_at_one_update(make_config, tmp_path):
    launch = ["-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", "29573"]
    outcomes = []
    for name, stops in (("straight", 0), ("stopped", 2)):
        config = make_config(name, **{"train.samples": 400, "log.every": 12})
        config.heldout.every, config.checkpoint.every = 40, 120
        arguments = [*launch, str(ROOT / "finetune" / "train.py"), *command(config)]
        for stop in range(stops):
            process = start(arguments, tmp_path)
            wait_for_updates(config, process)
            time.sleep(0.3 * stop)
            process.send_signal(signal.SIGTERM)
            output = process.communicate(timeout=120)[0]
            assert process.returncode != 0
            last = list_checkpoints(config.folder)[-1]
            state = json.loads((last.path / "state.json").read_bytes())
            assert not last.interrupted or len(state["interrupted"]["losses"]) == 2
            assert f"a checkpoint after {last.samples_seen} samples is stored" in output, output
        process = start(arguments, tmp_path)
        output = process.communicate(timeout=600)[0]
        assert process.returncode == 0, output
        outcomes.append((losses(config), digests(config)))
    assert outcomes[0] == outcomes[1]
