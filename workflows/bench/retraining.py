"""Seconds of a retraining that has nothing to do, with 100,000 files: as typed, looked at in full, read."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from workflows.bench.compare import say

FILES = 100_000
_PER_FOLDER = 1_000
_BYTES = 1_000


def run() -> None:
    """Plant a series whose last run has ended, and print how long a start takes that finds nothing new."""
    with tempfile.TemporaryDirectory() as folder:
        typed = _planted(Path(folder))
        say(f"\na retraining with nothing to do, {FILES:,} files")
        for name, further in {
            "as it is typed again": (),
            "looked at in full (other words)": ("keep=2",),
            "all files read (fingerprint=content)": ("fingerprint=content",),
        }.items():
            seconds = _seconds(lambda further=further: _start(*typed, *further))
            say(f"  {name:40}{seconds:6.1f} s")


def _start(*typed: str) -> None:
    command = [sys.executable, "-m", "workflows.retrain", *typed]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "nothing to do since" in done.stdout, done.stdout


def _seconds(work: Callable[[], object]) -> float:
    """Of the second time; the first one fills the system's cache."""
    work()
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _planted(folder: Path) -> list[str]:
    """The files and a run that ended; returns what was typed for it."""
    from workflows.retraining import commands, job
    from workflows.retraining.config import RetrainConfig, SeriesConfig
    from workflows.retraining.record import now

    for number in range(FILES):
        path = folder / "pictures" / f"{number // _PER_FOLDER:04d}" / f"{number:07d}.jpg"
        if number % _PER_FOLDER == 0:
            path.parent.mkdir(parents=True)
        path.write_bytes(b"%d" % number * (_BYTES // len(str(number))))
    experiment = folder / "bench.yaml"
    experiment.write_text(
        f"curate: {{dataset: folder, dataset.root: {folder / 'pictures'}, clip: starter, filters: default}}\n"
    )
    typed = [f"experiment={experiment}", f"run.root={folder / 'runs'}"]
    commands.remember(typed, commands.split(typed)[1])
    config = RetrainConfig(run=SeriesConfig(str(folder / "runs"), "bench"))
    settings, series = commands.of_command(config)
    with job.opened(config, settings, series) as planted:
        planted.begin()
        replace(planted.record, outcome="rejected", ended=now()).save(planted.run_dir)
        planted.remember_inputs()
    return typed
