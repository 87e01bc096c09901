"""Trackers get what the files hold, once, and their failures end no run."""

import os
import socket
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from curate.run import checksums, tracking
from curate.run.schema import UserError
from curate.run.tracking import check_names, chosen, curves, refuse_absent, write

POINTS = [(0, {"loss": 1.0, "note": "text", "bad": None}), (4, {"loss": 0.5}), (4, {"held": 2.0})]
EXPECTED = {"stage/loss": {0: 1.0, 4: 0.5}, "stage/held": {4: 2.0}}


@pytest.fixture
def stage(tmp_path):
    folder = tmp_path / "mine" / "stage"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def shown():
    """What TensorBoard shows of a folder: for each tag the values by step."""
    pytest.importorskip("tensorboard", reason='needs pip install "darkroom[tracking]"')
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    def show(stage: Path) -> dict[str, dict[int, float]]:
        found = EventAccumulator(str(stage / "tracking" / "tensorboard"), {"scalars": 0})
        found.Reload()
        tags = {tag: found.Scalars(tag) for tag in found.Tags()["scalars"]}
        assert all(len({e.step for e in events}) == len(events) for events in tags.values())
        return {tag: {e.step: e.value for e in events} for tag, events in tags.items() if events}

    return show


def event_files(stage: Path) -> list[Path]:
    return sorted((stage / "tracking" / "tensorboard").iterdir())


def test_tensorboard_shows_the_numbers_of_the_files(stage, shown):
    write("tensorboard", stage, POINTS)
    assert shown(stage) == EXPECTED


def test_what_is_shown_is_replaced_where_the_files_hold_less(stage, shown):
    """A training that was killed behind its checkpoint; its former file alone, and beside the new one."""
    with curves("tensorboard", stage, POINTS[:1]) as found:
        found.add(8, {"loss": 0.25, "held": 3.0})
        assert shown(stage)["stage/loss"] == {0: 1.0, 8: 0.25}
    [former] = event_files(stage)
    content = former.read_bytes()
    with curves("tensorboard", stage, POINTS[:2]) as found:
        assert shown(stage) == {"stage/loss": EXPECTED["stage/loss"]}
        assert former not in event_files(stage)
        found.add(8, {"loss": np.float64(0.125)})
    expected = {"stage/loss": {0: 1.0, 4: 0.5, 8: 0.125}}
    assert shown(stage) == expected
    former.write_bytes(content)  # killed before it was deleted
    assert shown(stage) == expected
    write("tensorboard", stage, POINTS[:2])
    assert len(event_files(stage)) == 1


def test_what_is_complete_is_left_alone(stage, shown):
    write("tensorboard", stage, POINTS)
    before = event_files(stage)
    write("tensorboard", stage, POINTS)
    assert event_files(stage) == before
    write("tensorboard", stage, POINTS[:1])
    assert event_files(stage) != before
    with curves("tensorboard", stage, POINTS[:1]) as found:
        found.add(*POINTS[1])
    before = event_files(stage)
    write("tensorboard", stage, POINTS[:2], resumes=True)
    assert event_files(stage) == before
    assert shown(stage) == {"stage/loss": EXPECTED["stage/loss"]}


def test_an_error_of_a_tracker_is_a_warning_once(stage, shown, monkeypatch, capsys):
    def refuse(self, *_):
        raise ConnectionError("no route")

    monkeypatch.setattr(tracking._Wandb, "start", refuse)
    with curves(["wandb", "tensorboard"], stage, POINTS) as found:
        found.add(8, {"loss": 0.25})
    assert shown(stage)["stage/loss"] == {0: 1.0, 4: 0.5, 8: 0.25}
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("warning: wandb failed (ConnectionError: no route)")


def test_a_tracker_that_fails_later_ends_there(stage, shown, monkeypatch, capsys):
    from accelerate.tracking import TensorBoardTracker

    real = TensorBoardTracker.log

    def full(self, values, step):
        if step:
            raise OSError(28, "No space left on device")
        real(self, values, step=step)

    monkeypatch.setattr(TensorBoardTracker, "log", full)
    write("tensorboard", stage, POINTS)
    assert shown(stage) == {"stage/loss": {0: 1.0}}
    assert len(capsys.readouterr().err.splitlines()) == 1
    monkeypatch.undo()
    write("tensorboard", stage, POINTS)
    assert shown(stage) == EXPECTED


def test_nothing_is_connected_to(stage, shown, monkeypatch, capsys):
    def refuse(self, address):
        raise AssertionError(f"connects to {address}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    write("tensorboard", stage, POINTS)
    assert shown(stage) == EXPECTED
    assert capsys.readouterr().err == ""


def test_the_first_process_of_a_launch_waits_for_no_other(stage, shown, monkeypatch, capsys):
    from accelerate import PartialState
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state(reset_partial_state=True)
    for name, value in (("LOCAL_RANK", "0"), ("RANK", "0"), ("WORLD_SIZE", "2")):
        monkeypatch.setenv(name, value)
    write("tensorboard", stage, POINTS)
    assert PartialState().num_processes == 1
    assert os.environ["LOCAL_RANK"] == "0"
    assert shown(stage) == EXPECTED
    assert capsys.readouterr().err == ""


def test_checksums_leave_the_folder_out(stage, shown):
    (stage / "report.json").write_text("{}")
    checksums.write(stage)
    write("tensorboard", stage, POINTS)
    assert checksums.unlisted(stage) == []
    assert list(checksums.problems(stage)) == []
    checksums.write(stage)
    assert checksums.read(stage).files.keys() == {"report.json"}


def test_the_default_is_tensorboard_where_it_is_installed(monkeypatch):
    installed = {"tensorboard", "wandb"}
    monkeypatch.setattr(tracking, "find_spec", lambda name: name if name in installed else None)
    assert list(chosen("auto")) == ["tensorboard"]
    installed.clear()
    assert list(chosen("auto")) == []
    refuse_absent("auto")
    for nothing in ("none", None, []):
        assert list(chosen(nothing)) == []
    assert chosen(["wandb", "mlflow", "wandb"]) == ["wandb", "mlflow"]


@pytest.mark.parametrize("value", ["auto", "none", None, "mlflow", ["tensorboard", "wandb"], []])
def test_accepted_values(value):
    check_names(value)


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("tensorbord", "Type tracker=tensorboard"),
        ("tensorboard,wandb", r"type 'tracker=\[tensorboard,wandb\]'"),
        (["wandb", "none"], "tracker=none is out of range"),
        (["auto", "wandb"], "tracker=auto is out of range"),
        ("all", "accepted: auto, none, tensorboard, wandb, mlflow"),
        (3, "tracker=3 is out of range"),
    ],
)
def test_refused_values(value, says):
    with pytest.raises(UserError, match=says):
        check_names(value)


@pytest.mark.parametrize(
    ("name", "package"),
    [("tensorboard", '"darkroom'), ("wandb", "wandb"), ("mlflow", "mlflow-skinny")],
)
def test_a_tracker_that_is_not_installed_is_refused(monkeypatch, name, package):
    monkeypatch.setattr(tracking, "find_spec", lambda _: None)
    with pytest.raises(UserError, match=f"tracker={name} .* type: pip install {package}"):
        refuse_absent([name])


class FakeRun:
    """As W&B's run: offline it begins with step 0, on a server where it was."""

    def __init__(self, wandb, **settings):
        self.logged, self.settings, self.step = {}, settings, wandb.step
        folder = Path(settings["dir"]) / "wandb" / f"offline-run-{len(wandb.runs)}-{settings['id']}"
        self.dir = str(folder / "files")
        Path(self.dir).mkdir(parents=True)

    def log(self, values, step):
        self.logged.setdefault(step, {}).update(values)

    def finish(self):
        self.finished = True


@pytest.fixture
def wandb(monkeypatch):
    for name in [*os.environ]:
        if name.startswith("WANDB_"):
            monkeypatch.delenv(name)
    monkeypatch.setattr(os, "environ", dict(os.environ))  # what is set goes with the test
    module = ModuleType("wandb")
    module.runs, module.step = [], 0
    module.init = lambda **settings: (
        module.runs.append(FakeRun(module, **settings)) or module.runs[-1]
    )
    monkeypatch.setitem(sys.modules, "wandb", module)
    return module


def test_wandb_stays_offline_and_one_run_is_left(stage, wandb, capsys):
    with curves("wandb", stage, POINTS) as found:
        found.add(8, {"loss": 0.25})
    assert os.environ["WANDB_MODE"] == "offline"
    with curves("wandb", stage, POINTS) as found:
        found.add(8, {"loss": 0.125})
    first, second = wandb.runs
    assert second.logged == {
        0: {"stage/loss": 1.0},
        4: {"stage/loss": 0.5, "stage/held": 2.0},
        8: {"stage/loss": 0.125},
    }
    assert first.settings["id"] == second.settings["id"]
    assert (second.settings["project"], second.settings["name"]) == ("darkroom", "mine/stage")
    assert [path.name for path in (stage / "tracking" / "wandb").iterdir()] == [
        f"offline-run-1-{second.settings['id']}"
    ]
    assert capsys.readouterr().err == ""


def test_wandb_on_a_server_goes_on_where_it_was(stage, wandb):
    os.environ["WANDB_MODE"] = "online"
    with curves("wandb", stage, POINTS[:1]):
        pass
    wandb.step = 5
    with curves("wandb", stage, POINTS) as found:
        found.add(8, {"loss": 0.25})
    assert wandb.runs[1].logged == {8: {"stage/loss": 0.25}}
    assert os.environ["WANDB_MODE"] == "online"


def test_a_stage_that_is_done_again_is_another_run_of_wandb(stage, wandb):
    write("wandb", stage, POINTS)
    write("wandb", stage, POINTS)
    write("wandb", stage, POINTS[:1])
    assert len(wandb.runs) == len({run.settings["id"] for run in wandb.runs}) == 2


@pytest.fixture
def mlflow(monkeypatch):
    for name in [*os.environ]:
        if name.startswith("MLFLOW_"):
            monkeypatch.delenv(name)
    monkeypatch.setattr(os, "environ", dict(os.environ))
    module = ModuleType("mlflow")
    module.logged, module.deleted, module.uri = [], [], None
    module.search_experiments = lambda **_: []
    module.create_experiment = lambda **_: "1"

    def start_run(**_):
        module.logged.append([])
        return SimpleNamespace(info=SimpleNamespace(run_id=f"run-{len(module.logged)}"))

    module.start_run, module.end_run = start_run, lambda: None
    module.log_metrics = lambda values, step: module.logged[-1].append((step, values))
    module.set_tracking_uri = lambda uri: setattr(module, "uri", uri)
    module.MlflowClient = lambda: SimpleNamespace(delete_run=module.deleted.append)
    monkeypatch.setitem(sys.modules, "mlflow", module)
    return module


def test_mlflow_is_local_and_the_former_run_goes(stage, mlflow, capsys):
    with curves("mlflow", stage, POINTS):
        assert mlflow.deleted == []
    with curves("mlflow", stage, POINTS[:2]) as found:
        assert mlflow.deleted == ["run-1"]
        found.add(8, {"loss": 0.25})
    values = [(0, {"stage/loss": 1.0}), (4, {"stage/loss": 0.5}), (8, {"stage/loss": 0.25})]
    assert mlflow.logged[1] == values
    assert mlflow.uri == (stage / "tracking" / "mlflow").as_uri()
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"
    assert capsys.readouterr().err == ""


def test_mlflow_goes_to_the_server_that_the_user_names(stage, mlflow):
    os.environ["MLFLOW_TRACKING_URI"] = "http://127.0.0.1:1"
    write("mlflow", stage, POINTS)
    assert mlflow.uri is None
    assert len(mlflow.logged[0]) == 3
