"""A task that raises or dies, and a driver that is killed, in each stage: nothing is lost, and no byte is another."""

import json
import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

from curate.pipeline import full
from curate.run.engine.config import EngineConfig
from curate.run.engine.tasks import ATTEMPTS, TasksFailed
from tests.curate import generated_pictures
from tests.curate.pipeline import every_rule
from tests.curate.pipeline.faults import (
    DIES_ALWAYS,
    DIES_ONCE,
    DRIVER_AMID,
    DRIVER_BEFORE,
    RAISES_ALWAYS,
    RAISES_ONCE,
    Faulty,
)

REPOSITORY = Path(__file__).resolve().parents[3]
COUNT, TASKS = 120, 5
STAGES = (
    "annotate.work:measuring",
    "decide.narrow:worker",
    "decide.near:leading",
    "decide.near:comparing",
    "decide.semantic:assigning",
    "decide.semantic:comparing",
    "decide.ledger_parts:worker",
    "pack.shard_tasks:checking",
    "pack.shard_tasks:writing",
    "pack.final_ledger:writing",
)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    folder = tmp_path_factory.mktemp("drawn")
    generated_pictures.write(folder, COUNT)
    return folder


def config(root, drawn, clip, engine="inprocess"):
    chosen = EngineConfig(name=engine, workers=None if engine == "inprocess" else 2)
    return every_rule.config(root, drawn, clip, COUNT, TASKS, chosen)


def curated(config, marks, stage="", fault=""):
    """The curation's folder, and what was mapped."""
    seen = []

    @contextmanager
    def faulty(config, folder, opened=full.open_engine):
        with opened(config, folder) as engine:
            yield Faulty(engine, stage, fault, marks, seen)

    marks.mkdir(exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(full, "open_engine", faulty)
        every_rule.cut_searches(patch, COUNT)
        return every_rule.curate(config), seen


@pytest.fixture(scope="module")
def whole(drawn, tiny_clip, tmp_path_factory):
    """The hashes of an undisturbed curation."""
    place = tmp_path_factory.mktemp("whole")
    curate_dir, seen = curated(config(place, drawn, tiny_clip), place / "marks")
    assert set(seen) == set(STAGES)  # none is overlooked
    return every_rule.hashes(curate_dir)


def attempts(marks):
    return len(list(marks.glob("attempt-*")))


def each(fault, quick):
    return [
        pytest.param(stage, fault, marks=() if stage in quick else pytest.mark.slow)
        for stage in STAGES
    ]


@pytest.mark.parametrize(
    ("stage", "fault"),
    [
        *each(RAISES_ONCE, ()),
        *each(RAISES_ALWAYS, ("annotate.work:measuring", "pack.shard_tasks:writing")),
        *each(DIES_ONCE, ("decide.near:comparing",)),
        *each(DIES_ALWAYS, ()),
    ],
)
def test_a_fault_costs_an_attempt_or_is_reported(drawn, tiny_clip, tmp_path, whole, stage, fault):
    engine = "inprocess" if fault in (RAISES_ONCE, RAISES_ALWAYS) else "processes"
    marks, chosen = tmp_path / "marks", config(tmp_path, drawn, tiny_clip, engine)
    if fault in (RAISES_ONCE, DIES_ONCE):
        curate_dir, _ = curated(chosen, marks, stage, fault)
        assert attempts(marks) == 2
    else:
        said = "attempt 3 of a task" if fault == RAISES_ALWAYS else "by SIGKILL"
        with pytest.raises(TasksFailed, match=rf": 1 of \d+ tasks failed in 3 attempts .*{said}"):
            curated(chosen, marks, stage, fault)
        assert attempts(marks) == ATTEMPTS
        assert not (tmp_path / "run/curate/manifest.json").exists()
        curate_dir, _ = curated(config(tmp_path, drawn, tiny_clip), marks)
    assert every_rule.hashes(curate_dir) == whole
    assert not (curate_dir / "tasks").exists()


@pytest.mark.slow
@pytest.mark.parametrize("fault", [DRIVER_BEFORE, DRIVER_AMID])
@pytest.mark.parametrize("stage", STAGES)
def test_a_killed_driver_goes_on(drawn, tiny_clip, tmp_path, whole, stage, fault):
    given = [str(tmp_path), str(drawn), str(tiny_clip), stage, fault]
    code = "import sys; from tests.curate.pipeline import test_faults; test_faults.driver(*sys.argv[1:])"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code, *given],
        cwd=REPOSITORY,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert not (tmp_path / "run/curate/manifest.json").exists()
    curate_dir, _ = curated(config(tmp_path, drawn, tiny_clip), tmp_path / "marks")
    assert every_rule.hashes(curate_dir) == whole
    assert not list(curate_dir.rglob("*.part"))


def driver(root, drawn, clip, stage, fault):
    """A driver with two processes that is killed."""
    chosen = config(Path(root), drawn, clip, "processes")
    curated(chosen, Path(root, "marks"), stage, fault)


def test_a_poisoned_check_of_shards_deletes_none(drawn, tiny_clip, tmp_path, whole):
    """The shards of the last curation are there when their check fails, and are taken over afterwards."""
    chosen, marks = config(tmp_path, drawn, tiny_clip), tmp_path / "marks"
    curate_dir, _ = curated(chosen, marks)
    shards = {path: path.stat().st_mtime_ns for path in curate_dir.glob("shards/*/*.tar")}
    with pytest.raises(TasksFailed, match="checking shards: 1 of"):
        curated(chosen, marks, "pack.shard_tasks:checking", RAISES_ALWAYS)
    curated(chosen, marks)
    assert {path: path.stat().st_mtime_ns for path in shards} == shards
    assert every_rule.hashes(curate_dir) == whole
    assert json.loads((curate_dir / "manifest.json").read_bytes())
