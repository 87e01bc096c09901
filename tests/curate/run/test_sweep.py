"""A sweep: one process for each job, each with a run folder of its own, all on one curation."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

import curate.pipeline.config  # noqa: F401 (these register what the commands register)
import evaluate.config  # noqa: F401
import finetune.config  # noqa: F401
from curate.run import sweep
from curate.run.overrides import value_of
from curate.run.schema import UserError

ROOT = Path(__file__).resolve().parents[3]


def named(commands, key="run.name"):
    return [
        [value_of(text) for text in command if text.startswith(f"{key}=")] for command in commands
    ]


def test_each_training_has_a_run_of_its_own_and_the_shards_of_the_first():
    typed = ["-m", "run.name=mine", "optim.lr=1e-4,5e-5", "method=lora, full", "train.seed=3"]
    commands = sweep.plan(typed, "train")
    settings = ("optim.lr=1e-4", "optim.lr=5e-5"), ("method=lora", "method=full")
    expected = [[f"mine_{rate}_{method}"] for rate in settings[0] for method in settings[1]]
    assert named(commands) == expected
    assert named(commands, "data.run") == [["mine"]] * 4
    assert all("train.seed=3" in command and "-m" not in command for command in commands)
    assert sweep.plan(["-m", *commands[0]], "train") == [commands[0]]  # a job sweeps nothing


def test_the_run_may_come_from_an_experiment_or_be_the_only_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text("train: {run.name: '${method.name} x', data.run: shared}")
    commands = sweep.plan(["-m", "experiment=mine.yaml", "optim.lr=1,2"], "train")
    assert named(commands) == [["lora x_optim.lr=1"], ["lora x_optim.lr=2"]]
    assert named(commands, "data.run") == [["shared"]] * 2
    with pytest.raises(UserError, match="runs holds no curated run"):
        sweep.plan(["-m", "optim.lr=1,2"], "train")
    (tmp_path / "runs/only/curate").mkdir(parents=True)
    (tmp_path / "runs/only/curate/manifest.json").write_text("{}")
    assert named(sweep.plan(["-m", "optim.lr=1,2"], "train"))[0] == ["only_optim.lr=1"]


def test_runs_that_differ_keep_their_names():
    typed = ["-m", "run.name=a,b", "method=full"]
    for section in ("train", "evaluate"):
        arguments = typed if section == "train" else typed[:2]
        commands = sweep.plan(arguments, section)
        assert named(commands) == [["a"], ["b"]]
        assert named(commands, "data.run") == [[], []]
    assert named(sweep.plan(["-m", "dataset=coco,openmoji"], "curate")) == [[], []]
    commands = sweep.plan(["-m", "dataset=coco", "split.val=0.1,0.2"], "curate")
    assert named(commands) == [["coco_split.val=0.1"], ["coco_split.val=0.2"]]


def test_evaluations_of_one_run_would_replace_each_other():
    with pytest.raises(UserError, match=r"only runs can be swept: type -m run\.name=a,b"):
        sweep.plan(["-m", "run.name=a", "sampler=ddim,ddpm"], "evaluate")


def test_every_job_is_checked_before_the_first_starts():
    with pytest.raises(UserError, match=r"optim\.lr must be a number such as 1e-4, not 'fast'"):
        sweep.plan(["-m", "run.name=a", "optim.lr=1e-4,fast"], "train")
    with pytest.raises(UserError, match="list the choices"):
        sweep.plan(["-m", "run.name=a", "method=glob(*)"], "train")


@pytest.mark.parametrize("value", ["a/b", "a b", "ä", "[x,y]", "x" * 300, "../../etc", "a:b"])
def test_a_name_is_one_folder_and_no_two_are_equal(value):
    names = [sweep.suffixed("mine", [f"model.path={text}"]) for text in (value, f"{value}!")]
    assert names[0] != names[1]
    for name in names:
        assert name.startswith("mine_model.path=")
        assert len(name.encode()) < 255
        assert not set(name) & set("/ \\:*?'\"<>|,[](){}$!~&;")


def test_values_in_hydras_grammar_are_kept_whole():
    typed = ["-m", "run.name=a", "method.targets=[to_q,to_k],[to_v]", "train.seed=range(1,3)"]
    commands = sweep.plan(typed, "train")
    assert len(commands) == 4
    assert "method.targets=[to_q,to_k]" in commands[0]
    assert [command[1] for command in commands] == ["train.seed=1", "train.seed=2"] * 2
    path = "model.path=/a=b (1)"  # no sweep: what Hydra cannot read
    assert path in sweep.plan(["-m", "run.name=a", path, "optim.lr=1,2"], "train")[0]


CODES = """
import sys
from curate.run import sweep
sweep.plan = lambda arguments, section: [[code] for code in arguments]
sys.argv[1:], arguments = [], sys.argv[1:]
sys.orig_argv = [sys.executable, "-c", "import os, signal, sys; code = int(sys.argv[1]);"
                 "os.kill(os.getpid(), -code) if code < 0 else sys.exit(code)"]
sys.exit(sweep.run(arguments, "train"))
"""


@pytest.mark.parametrize(
    ("codes", "ends", "starts"),
    [
        (["0", "0"], 0, 2),
        (["0", "2", "0", "1"], 2, 4),
        (["130", "0"], 130, 1),
        (["-9", "0"], 137, 2),
    ],
)
def test_a_job_that_fails_does_not_stop_the_others_and_an_interrupted_one_does(codes, ends, starts):
    done = subprocess.run(
        [sys.executable, "-c", CODES, *codes], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == ends, done.stderr
    assert done.stdout.count("job ") == starts


ASKED = """
import json, os, signal, subprocess, sys
from curate.run import sweep
child = ("import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: sys.exit(130)); "
         "print('ready', flush=True); time.sleep(30)")
sys.exit(sweep._start([sys.executable, "-c", child]))
"""


def test_a_request_to_stop_reaches_the_job():
    process = subprocess.Popen(
        [sys.executable, "-c", ASKED], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 130


def test_a_sweep_leaves_nothing_in_the_checkout(tmp_path):
    """Each job is a process with its own command line; here it fails for want of a curation."""
    before = subprocess.run(["git", "status", "--porcelain"], cwd=ROOT, capture_output=True).stdout
    arguments = ["-m", "optim.lr=1e-4,5e-5", "run.name=mine", f"run.root={tmp_path}"]
    done = subprocess.run(
        [sys.executable, "-m", "finetune", *arguments], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stdout.count("job ") == 2
    assert "run.name=mine_optim.lr=5e-5 data.run=mine" in done.stdout
    assert done.stderr.count("holds no finished curation") == 2
    assert list(tmp_path.iterdir()) == []
    after = subprocess.run(["git", "status", "--porcelain"], cwd=ROOT, capture_output=True).stdout
    assert after == before
