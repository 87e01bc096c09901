"""Runs that are cut, killed or made longer go on to the very bytes of one that never stopped."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from curate.run.schema import UserError
from finetune import checkpoint
from finetune.checkpoint import list_checkpoints
from finetune.config import ResumeConfig
from tests.finetune.conftest import command, digests, losses, start

ROOT = Path(__file__).resolve().parents[2]


class Killed(BaseException):
    """Stands in for the power cut: no ``except Exception`` sees it."""


@pytest.mark.quick_cases(3)
@pytest.mark.parametrize("cut", [2, 5, 9, 14, 17, 21])
def test_a_run_cut_at_any_write_resumes_to_the_same_bytes(
    make_config, run_training, monkeypatch, whole_run, cut
):
    """The writes are counted by their fsync; the run dies in the middle of number ``cut``."""
    config = make_config()
    calls = 0
    real = os.fsync

    def dying(descriptor: int) -> None:
        nonlocal calls
        calls += 1
        if calls == cut:
            raise Killed
        real(descriptor)

    monkeypatch.setattr(os, "fsync", dying)
    with pytest.raises(Killed):
        run_training(config)
    monkeypatch.setattr(os, "fsync", real)
    run_training(config)
    assert losses(config) == whole_run[0]
    assert digests(config) == whole_run[1]


@pytest.mark.parametrize("moment", ["_link", "_strip"])
def test_links_and_retention_follow_after_a_kill_behind_the_last_checkpoint(
    make_config, run_training, monkeypatch, moment
):
    """No update is left that would store another one."""
    config = make_config(**{"checkpoint.keep": 1, "train.samples": 48, "heldout.items": 0})
    real = getattr(checkpoint, moment)

    def killed(path, *rest):
        if (config.folder / "checkpoints" / "step-00000012").exists():
            raise Killed
        real(path, *rest)

    with monkeypatch.context() as patched:
        patched.setattr(checkpoint, moment, killed)
        with pytest.raises(Killed):
            run_training(config)
    run_training(config)
    has_optimizer = {
        c.step: (c.path / "state.safetensors").exists() for c in list_checkpoints(config.folder)
    }
    assert has_optimizer == {4: False, 8: False, 12: True}
    for name in ("best", "last"):
        link = config.folder / "checkpoints" / name
        assert link.readlink().name == "step-00000012"


@pytest.fixture
def whole_run(make_config, run_training, tmp_path):
    """Losses and hashes of an uninterrupted run of the same configuration in the same place."""
    config = make_config()
    run_training(config)
    result = losses(config), digests(config)
    config.folder.rename(tmp_path / "whole")
    return result


def test_sigkill_and_the_same_command_again(make_config, run_training, whole_run, tmp_path):
    config = make_config()
    arguments = [str(ROOT / "finetune" / "train.py"), *command(config)]
    first = start(arguments, tmp_path)
    deadline = time.monotonic() + 600
    while not (config.folder / "checkpoints" / "last").exists():
        assert first.poll() is None, first.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.005)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    second = start(arguments, tmp_path)
    output = second.communicate(timeout=600)[0]
    assert second.returncode == 0, output
    assert losses(config) == whole_run[0]
    assert digests(config) == whole_run[1]


def test_a_longer_run_goes_on_from_the_shorter_one(make_config, run_training):
    """With a constant rate, 32 samples and then 48 are the same as 48 at once."""
    config = make_config("grown")
    run_training(config)
    config.train.samples = 48
    run_training(config)
    direct = make_config("direct", **{"train.samples": 48})
    run_training(direct)
    assert losses(config) == losses(direct)


def test_a_longer_run_that_is_cut_is_not_complete(make_config, run_training, monkeypatch, capsys):
    """The shorter run's export does not pass for the longer one's, and stays until that is there."""
    import finetune.run

    config = make_config("grown")
    run_training(config)
    shorter = digests(config)
    config.train.samples = 48

    def killed(*_):
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(finetune.run, "export", killed)
        with pytest.raises(Killed):
            run_training(config)
    assert [c.step for c in list_checkpoints(config.folder)] == [4, 8, 12]
    exported = {name: digest for name, digest in shorter.items() if name.startswith("export/")}
    assert exported
    assert exported.items() <= digests(config).items()
    capsys.readouterr()
    run_training(config)
    assert "is complete" not in capsys.readouterr().out
    direct = make_config("direct", **{"train.samples": 48})
    run_training(direct)
    assert digests(config) == digests(direct)


def test_a_rate_is_changed_on_purpose_and_recorded(make_config, run_training, capsys):
    """As many samples at the new rate from the same state, so the weights differ from there on only."""
    config = make_config(**{"train.samples": 32})
    run_training(config)
    first = list_checkpoints(config.folder)[-1].weights(ema=False)
    config.train.samples, config.optim.lr = 64, 1e-5
    with pytest.raises(
        UserError, match=r"optim\.lr=0\.001, not 1e-05.*type 'resume\.allow=\[optim\.lr\]'"
    ):
        run_training(config)
    config.resume.allow = ["optim.lr"]
    run_training(config)
    assert "changed optim.lr from 0.001 to 1e-05 after 32 samples" in capsys.readouterr().out
    assert {each["lr"] for each in losses(config) if each["step"] > 8 and "lr" in each} == {1e-5}
    stored = list_checkpoints(config.folder)[-1]
    change = {"samples_seen": 32, "key": "optim.lr", "from": 1e-3, "to": 1e-5}
    assert stored.state()["changes"] == [change]
    last = stored.weights(ema=False)
    moved = max((last[name] - first[name]).abs().max().item() for name in first)
    assert 0 < moved < 8 * 1e-5 * 1.5  # 8 updates; AdamW moves a weight by about the rate

    config.resume.allow = []
    run_training(config)  # which is the same command without it
    assert list_checkpoints(config.folder)[-1].state()["changes"] == [change]


def test_nothing_is_changed_in_a_training_that_has_ended(make_config, run_training):
    config = make_config()
    run_training(config)
    config.optim.lr, config.resume.allow = 1e-5, ["optim.lr"]
    with pytest.raises(UserError, match=r"has ended, so .* larger train\.samples"):
        run_training(config)


def test_only_some_settings_may_be_changed():
    with pytest.raises(UserError, match=r"resume\.allow=optim\.batch_size.*some of optim\.lr"):
        ResumeConfig(allow=["optim.batch_size"])
