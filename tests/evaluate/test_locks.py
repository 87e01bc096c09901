"""Curation, training and evaluation of one run leave each other alone where they would disturb each other."""

from __future__ import annotations

import os
import subprocess

import pytest

import evaluate.run
import finetune.run
from curate.pipeline import full
from curate.pipeline.config import CurateConfig
from curate.readers.folder import FolderConfig
from curate.run import cli as command
from curate.run.config import RunConfig
from curate.run.locks import locked
from curate.run.schema import Busy
from evaluate.__main__ import start as judge
from finetune.train import start as train
from tests.evaluate.test_run import config


@pytest.fixture
def commands(make_config, run_training, clip_dir, monkeypatch):
    """Curate, train and evaluate a run, by name; each only notes that it began."""
    trained, began = make_config(), []
    run_training(trained)
    monkeypatch.setattr(finetune.run, "train", lambda *_: began.append("train"))
    monkeypatch.setattr(evaluate.run, "evaluate_run", lambda *_, **__: began.append("evaluate"))
    monkeypatch.setattr(full, "_run", lambda *_: began.append("curate"))
    again = CurateConfig(
        run=RunConfig(trained.run.root, trained.run.name),
        dataset=FolderConfig(name="small", reader="folder", root="."),
    )
    return (
        trained.run.folder,
        began,
        {
            "curate": lambda: full.run(again, None),
            "train": lambda: train(trained),
            "evaluate": lambda: judge(config(trained, clip_dir)),
        },
    )


@pytest.mark.parametrize(
    ("held", "busy"),
    [
        ({"curate": False}, {"curate", "train", "evaluate"}),
        ({"curate": True, "finetune": False}, {"curate", "train", "evaluate"}),  # a training
        ({"curate": True}, {"curate"}),  # a training of another run on this curation
        ({"curate": True, "finetune": True, "evaluate": False}, {"curate", "train", "evaluate"}),
    ],
)
def test_who_waits_for_whom(commands, held, busy):
    run_dir, began, by_name = commands
    locks = [locked(run_dir / stage, shared=shared) for stage, shared in held.items()]
    for lock in locks:
        lock.__enter__()
    for name, begin in by_name.items():
        if name in busy:
            with pytest.raises(Busy, match=f"in {run_dir}/.*: process {os.getpid()} "):
                begin()
        else:
            begin()
    assert set(began) == by_name.keys() - busy
    began.clear()
    for lock in reversed(locks):
        lock.__exit__(None, None, None)
    for begin in by_name.values():
        begin()
    assert began == ["curate", "train", "evaluate"]


def test_of_a_launch_the_first_process_locks(commands, monkeypatch):
    run_dir, began, by_name = commands
    monkeypatch.setenv("RANK", "1")
    with locked(run_dir / "finetune"):
        by_name["train"]()
    assert began == ["train"]


def test_what_a_killed_evaluation_left_is_removed(commands):
    run_dir, _, by_name = commands
    part = run_dir / "evaluate/samples/base/.a.png.7.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(b"half")
    by_name["evaluate"]()
    assert not list(run_dir.rglob("*.part"))


@pytest.mark.slow
def test_a_full_disk_while_judging_is_one_paragraph(make_run, clip_dir, tmp_path, capsys):
    trained = make_run()
    folder = trained.run.folder / "evaluate"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8k", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no right to mount a file system")
    try:
        for kilobytes in (8, 60, 200):
            more = ["mount", "-o", f"remount,size={kilobytes}k", str(folder)]
            subprocess.run(more, check=True)
            with pytest.raises(SystemExit) as leaving:
                command.run(lambda: judge(config(trained, clip_dir)))
            assert leaving.value.code == command.EXIT_USER_ERROR
            said = capsys.readouterr().err.rpartition("error: ")[2].strip()
            assert said.startswith(f"{folder}/")
            assert "No space left on device" in said
            assert not list(folder.rglob("*.part"))
        subprocess.run(["mount", "-o", "remount,size=20m", str(folder)], check=True)
        judge(config(trained, clip_dir))
        assert (folder / "report.html").is_file()
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)
