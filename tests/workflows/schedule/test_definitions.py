"""Dagster's side: steps, retries, skips, schedule, sensor, and a run whose process is gone."""

from __future__ import annotations

import os
import re
import sys
from dataclasses import replace

import pytest
import yaml

from workflows.schedule import __main__ as command
from workflows.schedule import server
from workflows.schedule.server import SETTINGS

dg = pytest.importorskip("dagster", reason="needs the extra schedule: pip install -e '.[schedule]'")

from workflows.schedule import definitions, launcher  # noqa: E402

STEPS = ["curate", "finetune", "evaluate", "promote"]


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(definitions, "WAIT_S", 0)


def run(stand_in):
    defs = definitions.all_definitions(stand_in.settings)
    return defs.resolve_job_def("retrain_photos").execute_in_process(raise_on_error=False)


def events(result, kind):
    return [e.step_key.removeprefix("photos__") for e in result.all_events if e.event_type == kind]


def test_each_step_does_the_retraining_up_to_it(stand_in):
    stand_in.plan(promote={"outcome": "promoted", "run": "photos-0002", "changes": ["a", "b"]})
    result = run(stand_in)
    assert result.success
    assert [note.split()[2] for note in stand_in.notes] == [f"until={step}" for step in STEPS]
    shown = result.asset_materializations_for_node("photos__promote")[0].metadata
    assert shown["outcome"].value == "promoted"
    assert shown["run"].value == "photos-0002"
    assert shown["changes"].value == "- a\n- b"


def test_with_nothing_to_do_the_steps_are_skipped(stand_in):
    stand_in.plan(curate={"outcome": "nothing_to_do", "sentence": "nothing to do since Sunday"})
    result = run(stand_in)
    assert result.success
    assert len(stand_in.notes) == 1
    assert events(result, dg.DagsterEventType.STEP_SKIPPED) == STEPS[1:]


@pytest.mark.parametrize("code", [1, 2, 3])
def test_what_would_end_the_same_is_not_tried_again(stand_in, code):
    stand_in.plan(evaluate={"code": code, "outcome": "rejected", "sentence": "it is worse"})
    result = run(stand_in)
    assert not result.success
    assert len(stand_in.notes) == 3
    failure = result.failure_data_for_node("photos__evaluate").user_failure_data
    assert failure.description == "it is worse"


@pytest.mark.parametrize("code", [70, 75, 130, -9])
def test_what_may_go_on_is_tried_again(stand_in, code):
    broken = {"code": code % 256, "outcome": "failed"}
    stand_in.plan(finetune=[broken, broken, {}])
    result = run(stand_in)
    assert result.success
    assert events(result, dg.DagsterEventType.STEP_RESTARTED) == ["finetune", "finetune"]


def test_not_for_ever(stand_in):
    stand_in.plan(finetune={"code": 70, "outcome": "failed"})
    assert not run(stand_in).success
    assert len(stand_in.notes) == 1 + 1 + definitions.RETRIES


@pytest.fixture
def automation(stand_in):
    defs = definitions.all_definitions(stand_in.settings)
    with dg.instance_for_test() as instance:
        schedule = defs.resolve_schedule_def("at_times_photos")
        sensor = defs.resolve_sensor_def("when_new_photos")
        yield lambda: [
            schedule.evaluate_tick(dg.build_schedule_context(instance)),
            sensor.evaluate_tick(dg.build_sensor_context(instance, definitions=defs)),
        ]


@pytest.mark.parametrize(
    "answer",
    [
        {"outcome": "nothing_to_do", "sentence": "nothing to do since Sunday"},
        {"outcome": "busy", "code": 75, "sentence": "another retraining is at work"},
    ],
)
def test_ticks_are_skipped_in_the_command_s_words(stand_in, automation, answer):
    stand_in.plan(why=answer)
    for tick in automation():
        assert not tick.run_requests
        assert tick.skip_message == answer["sentence"]
    assert stand_in.notes[0].endswith("until=promote --why --json")  # as the last step types it


def test_ticks_ask_once_for_the_same(stand_in, automation):
    would = {"outcome": "would_start", "changes": ["data: 3 files"], "current": "photos-0001"}
    keys = []
    for answer in (would, would, would | {"changes": ["data: 4 files"]}, would | {"current": "x"}):
        stand_in.plan(why=answer)
        keys.append([tick.run_requests[0].run_key for tick in automation()])
    assert keys[0] == keys[1]
    assert len({key for _, key in keys}) == 3


# Only a code server can create a queued run.
CREATED = [status for status in dg.DagsterRunStatus if status.value != "QUEUED"]


@pytest.mark.parametrize("status", CREATED)
def test_a_run_that_dagster_has_begun_or_queued_is_enough(stand_in, status):
    """Between two steps of it nobody is at work, and the command would say that it goes on."""
    stand_in.plan(why={"outcome": "would_start", "changes": ["data: 3 files"]})
    defs = definitions.all_definitions(stand_in.settings)
    has_ended = status.value in ("SUCCESS", "FAILURE", "CANCELED")
    with dg.instance_for_test() as instance:
        job = defs.resolve_job_def("retrain_photos")
        begun = instance.create_run_for_job(job, status=status)
        for tick in (
            defs.resolve_schedule_def("at_times_photos").evaluate_tick(
                dg.build_schedule_context(instance)
            ),
            defs.resolve_sensor_def("when_new_photos").evaluate_tick(
                dg.build_sensor_context(instance, definitions=defs)
            ),
        ):
            assert len(tick.run_requests or []) == has_ended
            if not has_ended:
                assert tick.skip_message == f"run {begun.run_id} is {status.value.lower()}"
    assert len(stand_in.notes) == 2 * has_ended
    assert dg.DagsterRunStatus.QUEUED in definitions.UNFINISHED


def test_a_tick_fails_where_the_settings_are_wrong(stand_in, automation):
    stand_in.plan(why={"code": 2, "error": "optim.lr=x is no number"})
    with pytest.raises(dg.DagsterError) as raised:
        automation()
    assert raised.value.__cause__.description == "optim.lr=x is no number"


@pytest.mark.parametrize(("look_s", "status"), [(0, "STOPPED"), (60, "RUNNING")])
def test_the_sensor_looks_where_it_is_asked_to(stand_in, look_s, status):
    defs = definitions.all_definitions(replace(stand_in.settings, look_s=look_s))
    assert defs.resolve_sensor_def("when_new_photos").default_status.value == status
    assert defs.resolve_schedule_def("at_times_photos").default_status.value == "RUNNING"


def test_several_experiments_stand_beside_each_other(stand_in):
    settings = replace(stand_in.settings, experiments=("my/photos.yaml", "demo"))
    defs = definitions.all_definitions(settings)
    dg.Definitions.validate_loadable(defs)
    assert len(defs.resolve_all_asset_specs()) == 2 * len(STEPS)


@pytest.fixture
def started(stand_in, monkeypatch):
    """``python -m workflows.schedule start`` with the stand-in, and without a server."""
    monkeypatch.setenv("DARKROOM_COMMAND", " ".join(stand_in.settings.command))
    monkeypatch.setattr(sys, "argv", ["schedule", "start"])
    monkeypatch.setattr(server, "start", lambda *_: "it runs")
    monkeypatch.delitem(sys.modules, "workflows.schedule.definitions")
    return command.main


def test_the_start_says_what_is_new(started, stand_in, capsys):
    stand_in.plan(why={"outcome": "nothing_to_do", "sentence": "nothing to do since Sunday"})
    started()
    out = capsys.readouterr().out.splitlines()
    assert out[1:] == ["demo: nothing to do since Sunday", "it runs"]


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("DARKROOM_EXPERIMENT", "demo", "optim.lr=x is no number"),
        ("DARKROOM_CRON", "61 * * * *", "61 [*] [*] [*] [*]"),
        ("DARKROOM_TIMEZONE", "Berlin", "Berlin"),
        ("DARKROOM_LOOK_S", "often", "DARKROOM_LOOK_S=often"),
    ],
)
def test_wrong_settings_are_refused_at_the_start(
    started, stand_in, monkeypatch, capsys, variable, value, said
):
    stand_in.plan(why={"code": 2, "error": "optim.lr=x is no number"})
    monkeypatch.setenv(variable, value)
    with pytest.raises(SystemExit) as left:
        started()
    assert left.value.code == 2
    assert re.search(said, capsys.readouterr().err)


def test_a_run_whose_process_is_gone_is_noticed():
    with dg.instance_for_test() as instance:
        one = instance.create_run_for_job(definitions.defs.resolve_job_def("retrain_demo"))
    watch = launcher.WatchedRunLauncher()
    health = lambda: watch.check_run_worker_health(one).status.value  # noqa: E731
    assert health() == "RUNNING"  # between two steps
    with launcher.at_work(one.run_id):
        assert health() == "RUNNING"
    assert health() == "RUNNING"
    if not (child := os.fork()):
        with launcher.at_work(one.run_id):
            os._exit(9)  # as by SIGKILL, nothing is cleaned up
    os.waitpid(child, 0)
    assert health() == "FAILED"


def test_dagster_tells_nobody_and_watches_its_runs(tmp_path):
    home = tmp_path / "home"
    (home / "dagster.yaml").write_text(SETTINGS.read_text())
    with dg.DagsterInstance.get() as instance:
        assert not instance.telemetry_enabled
        assert not instance.nux_enabled
        assert instance.run_monitoring_enabled
        assert instance.run_retries_enabled
        assert not instance.run_retries_retry_on_asset_or_op_failure
        assert instance.run_launcher.supports_check_run_worker_health
        assert "sqlite" in type(instance.run_storage).__name__.lower()
    content = yaml.safe_load(SETTINGS.read_text())
    assert content["concurrency"]["runs"]["max_concurrent_runs"] == 1
