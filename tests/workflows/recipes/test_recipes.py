"""The recipes say what they do, parse, start a command that is there with settings that it takes, and end it well."""

from __future__ import annotations

import configparser
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest
import yaml
from hydra import compose, initialize_config_dir

from curate.run import experiment
from curate.run.overrides import CONF, is_override, prepare
from curate.run.schema import to_dataclass
from workflows.retraining.config import RetrainConfig

ROOT = CONF.parent
RECIPES = ROOT / "workflows" / "recipes"
FILES = sorted(path for path in RECIPES.iterdir() if path.is_file())
COMMAND = re.compile(r"python -m (workflows\.retrain) ([^>&\n]*)")


def text(name: str) -> str:
    return (RECIPES / name).read_text("utf-8")


def unit(name: str) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(strict=False, delimiters="=", interpolation=None)
    parser.optionxform = str
    parser.read_string(text(name))
    return parser


def test_all_are_here():
    names = (
        "Dockerfile crontab darkroom-retrain.service darkroom-retrain.timer github-actions.yaml "
    )
    assert [path.name for path in FILES] == sorted(
        [*names.split(), "kubernetes.yaml", "slurm.sh", "slurm-curate.sh"]
    )


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_three_lines_say_what_it_does_what_to_change_and_what_was_run(path):
    lines = [line for line in path.read_text("utf-8").splitlines() if not line.startswith("#!")]
    head = " ".join(lines[:3])
    assert all(line.startswith("# ") for line in lines[:3])
    assert not lines[3].startswith("# ")
    assert "Change: " in head
    assert re.search(r"(Run|Checked) here: .*[Nn]ot run: ", head)


def commands() -> list[str]:
    """What is typed behind ``python -m workflows.retrain``, in any recipe."""
    typed = [found[2] for path in FILES for found in COMMAND.finditer(path.read_text("utf-8"))]
    job = next(d for d in yaml.safe_load_all(text("kubernetes.yaml")) if d["kind"] == "CronJob")
    pod = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    return [*typed, " ".join(pod["containers"][0]["args"])]


@pytest.mark.parametrize("typed", commands())
def test_the_command_takes_its_settings(typed):
    words = [word.rstrip("`") for word in typed.split() if is_override(word)]
    assert any(word.startswith("experiment=") for word in words)
    own = [word for word in words if not word.startswith("experiment=")]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        assert to_dataclass(compose("retrain", overrides=prepare(own)), RetrainConfig)


def test_the_settings_in_kubernetes_are_an_experiment(tmp_path):
    settings = next(yaml.safe_load_all(text("kubernetes.yaml")))["data"]["mine.yaml"]
    (tmp_path / "mine.yaml").write_text(settings)
    for section in ("curate", "train", "evaluate"):
        given = experiment.apply([f"experiment={tmp_path / 'mine.yaml'}"], section)
        assert (section == "evaluate") == (not given)


def test_each_starts_the_command():
    for name in ("crontab", "darkroom-retrain.service", "github-actions.yaml", "slurm.sh"):
        assert COMMAND.search(text(name)), name
    assert '["python", "-m", "workflows.retrain"]' in text("Dockerfile")


def test_all_name_the_same_time():
    job = next(d for d in yaml.safe_load_all(text("kubernetes.yaml")) if d["kind"] == "CronJob")
    workflow = yaml.safe_load(text("github-actions.yaml"))
    schedule = workflow[True]["schedule"]  # YAML 1.1 reads the key "on" as true
    times = [job["spec"]["schedule"], schedule[0]["cron"], text("crontab").splitlines()[-1][:10]]
    assert times == ["17 3 * * 0"] * 3
    assert unit("darkroom-retrain.timer")["Timer"]["OnCalendar"] == "Sun *-*-* 03:17:00"


def test_a_second_one_never_starts_beside_the_first():
    job = next(d for d in yaml.safe_load_all(text("kubernetes.yaml")) if d["kind"] == "CronJob")
    assert job["spec"]["concurrencyPolicy"] == "Forbid"
    rules = job["spec"]["jobTemplate"]["spec"]["podFailurePolicy"]["rules"]
    assert rules[0]["onExitCodes"]["values"] == [1, 2, 3]
    workflow = yaml.safe_load(text("github-actions.yaml"))
    assert workflow["concurrency"] == {"group": "retrain", "cancel-in-progress": False}
    assert workflow["jobs"]["retrain"]["runs-on"][0] == "self-hosted"
    assert "#SBATCH --dependency=singleton" in text("slurm.sh")


def test_units_of_systemd():
    service = unit("darkroom-retrain.service")["Service"]
    assert service["KillMode"] == "mixed"  # the command hands the signal on; its step gets it once
    assert service["RestartPreventExitStatus"] == "1 2 3 75"
    assert unit("darkroom-retrain.timer")["Timer"]["Persistent"] == "true"


def test_the_image_is_made_of_what_there_is():
    copied = re.findall(r"^COPY (.*) \S+$", text("Dockerfile"), re.MULTILINE)
    names = {name for line in copied for name in line.split()}
    assert {"conf", "curate", "finetune", "evaluate", "workflows"} <= names
    assert all((ROOT / name).exists() for name in names)


def test_slurm_s_script_parses():
    assert "#SBATCH --signal=B:TERM@300" in text("slurm.sh")
    assert "#SBATCH --requeue" in text("slurm.sh")
    subprocess.run(["bash", "-n", RECIPES / "slurm.sh"], check=True)


@pytest.fixture
def slurm(tmp_path):
    """The script in a folder of its own, with a stand-in for the command and one for ``scontrol``."""
    python = tmp_path / "stand_in"
    python.write_text(
        f"#!{sys.executable}\n"
        "import os, signal, sys, time\n"
        "def stop(*_):\n    time.sleep(0.3)\n    open('stored', 'a').write('x')\n    sys.exit(130)\n"
        "signal.signal(signal.SIGTERM, stop)\n"
        "open('started', 'w').close()\n"
        "time.sleep(float(os.environ['SECONDS_']))\n"
        "sys.exit(int(os.environ['CODE']))\n"
    )
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    shutil.copyfile(python, tmp_path / ".venv" / "bin" / "python")
    (tmp_path / ".venv" / "bin" / "python").chmod(0o755)
    (tmp_path / "scontrol").write_text('#!/bin/sh\necho "$@" > requeued\n')
    (tmp_path / "scontrol").chmod(0o755)
    script = text("slurm.sh").replace("/srv/darkroom", str(tmp_path))
    (tmp_path / "slurm.sh").write_text(script)

    def start(code: int, seconds: float) -> subprocess.Popen:
        own = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_ID": "17"}
        plan = {"CODE": str(code), "SECONDS_": str(seconds)}
        return subprocess.Popen(["bash", tmp_path / "slurm.sh"], env=os.environ | own | plan)

    return start


@pytest.mark.parametrize("code", [0, 2, 70])
def test_slurm_s_script_ends_as_the_command_does(slurm, tmp_path, code):
    assert slurm(code, 0).wait() == code
    assert not (tmp_path / "requeued").exists()


def test_slurm_s_script_stores_and_goes_back_into_the_queue(slurm, tmp_path):
    job = slurm(0, 60)
    end = time.monotonic() + 20
    while not (tmp_path / "started").exists() and time.monotonic() < end:
        time.sleep(0.02)
    job.send_signal(signal.SIGTERM)  # B: to the shell only
    assert job.wait() == 0
    assert (tmp_path / "stored").read_text() == "x"
    assert (tmp_path / "requeued").read_text() == "requeue 17\n"
