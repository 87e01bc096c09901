"""A disk that is full while training: one paragraph, nothing half written, and later the same bytes."""

from __future__ import annotations

import errno
import os
import subprocess

import pytest
from safetensors import SafetensorError

from curate.run import cli as command
from finetune import checkpoint, metrics
from finetune.checkpoint import list_checkpoints, os_errors
from tests.finetune.conftest import digests, losses


@pytest.fixture
def small_disk(tmp_path):
    """Mounts a file system of its own at a folder, so many kB large."""
    mounted = []

    def mount(folder, kilobytes):
        folder.mkdir(parents=True, exist_ok=True)
        options = ["-o", f"size={kilobytes}k" + (",remount" if folder in mounted else "")]
        made = ["mount", "-t", "tmpfs", *options, "tmpfs", str(folder)]
        if os.geteuid() != 0 or subprocess.run(made, capture_output=True, check=False).returncode:
            pytest.skip("no right to mount a file system")
        mounted.append(folder)

    yield mount
    for folder in set(mounted):
        subprocess.run(["umount", "-l", str(folder)], check=True)


def refused(work, capsys):
    """The paragraph that a command ends with."""
    with pytest.raises(SystemExit) as leaving:
        command.run(work)
    assert leaving.value.code == command.EXIT_USER_ERROR
    said = capsys.readouterr().err.rpartition("error: ")[2].strip()
    assert "\n" not in said
    assert "No space left on device" in said
    assert "the same command again resumes" in said
    return said


def test_wherever_the_disk_is_full_the_run_goes_on_later(
    make_config, run_training, small_disk, tmp_path, capsys
):
    whole = make_config(method="full")
    run_training(whole)
    expected = losses(whole), digests(whole)
    used = sum(-(-p.stat().st_size // 4096) * 4 for p in whole.folder.rglob("*") if p.is_file())
    whole.folder.rename(tmp_path / "whole")
    named = set()
    small_disk(whole.folder, 4)
    for kilobytes in (12, used // 3, used // 2, 2 * used // 3, used - 16, used + 2000):
        small_disk(whole.folder, kilobytes)
        try:
            said = refused(lambda: run_training(whole), capsys)
        except pytest.fail.Exception:
            break  # it did not raise: there was room
        named.add(said.partition(": ")[0].removeprefix(str(whole.folder)).split("/")[1])
        assert not list(whole.folder.rglob("*.part")), said
        assert all(
            (found.path / "weights.safetensors").exists()
            for found in list_checkpoints(whole.folder)
        )
    assert (losses(whole), digests(whole)) == expected
    assert {"checkpoints", "export"} <= named


def test_what_safetensors_says_of_the_disk_is_an_error_of_the_disk(tmp_path):
    text = "Error while serializing: I/O error: No space left on device (os error 28)"
    with pytest.raises(OSError, match="No space left") as raised, os_errors():
        raise SafetensorError(text)
    assert raised.value.errno == errno.ENOSPC
    with pytest.raises(SafetensorError), os_errors():
        raise SafetensorError("the header is too large")


def test_a_full_disk_at_a_checkpoint_is_told_where_nothing_can_be_mounted(
    make_config, run_training, monkeypatch, capsys
):
    def full(*_):
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    config = make_config()
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save_file", full)
        said = refused(lambda: run_training(config), capsys)
    assert said.startswith(f"{config.folder / 'checkpoints' / 'step-00000004'}: ")
    assert not list(config.folder.rglob("*.part"))
    run_training(config)
    assert [found.step for found in list_checkpoints(config.folder)] == [4, 8]


def test_a_line_that_does_not_fit_names_its_file(small_disk, tmp_path):
    path = tmp_path / "disk" / "metrics.jsonl"
    small_disk(path.parent, 4)
    with pytest.raises(OSError, match="No space left") as raised:
        metrics.append(path, {"step": 1, "text": "x" * 20_000})
    assert raised.value.filename == str(path)
