"""The command itself: settings from an experiment, exit codes, the last line of JSON."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from curate.run import provenance
from curate.run.locks import locked
from tests.workflows.retraining.conftest import Commands
from workflows import retrain
from workflows.retraining import commands, inputs, steps, unchanged
from workflows.retraining.input_files import Root
from workflows.retraining.record import Record

ROOT = Path(__file__).resolve().parents[2]
EXPERIMENT = """
curate: {run.name: mine, dataset: folder, dataset.root: pictures, clip: starter}
train: {model: starter, optim.lr: 1e-3}
evaluate: {grid.items: 3}
retrain: {keep: 2, notify.command: "cat > told; false", notify.attempts: 1}
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pictures").mkdir()
    for name in "abcd":
        (tmp_path / "pictures" / f"{name}.png").write_text(name)
    (tmp_path / "mine.yaml").write_text(EXPERIMENT)
    return tmp_path


@pytest.fixture
def fake(folder, monkeypatch):
    found = Commands(folder / "runs", folder / "pictures")
    monkeypatch.setattr(steps, "run", found.run)
    monkeypatch.setattr(provenance, "_revision", lambda: "1234")
    code = Root("code", str(folder / "code"), "the code", (".py",))
    monkeypatch.setattr(inputs, "_code", lambda: iter([code]))
    yield found
    commands.remember([], {})


@pytest.fixture
def run(fake, monkeypatch, capsys):
    """Start as typed, in this process; returns the exit code, what JSON it prints last, and its errors."""

    def start(*arguments):
        monkeypatch.setattr("sys.argv", ["retrain", *arguments])
        code = 0
        try:
            retrain.main()
        except SystemExit as leaving:
            code = leaving.code or 0
        said = capsys.readouterr()
        lines = said.out.splitlines()
        found = json.loads(lines[-1]) if "--json" in arguments and lines else None
        return code, found, said.err

    return start


def test_a_series_from_an_experiment(run, fake, folder, monkeypatch):
    """Promoted, nothing to do by the quick look, settings that are typed, rejected, undecided, failed, busy."""
    mine = ("experiment=mine.yaml", "--json")
    code, said, err = run(*mine)
    assert (code, said["outcome"], said["current"]) == (0, "promoted", "mine-0001")
    assert "warning: notify.command was not delivered in 1 tries: exit code 1" in err
    assert json.loads((folder / "told").read_bytes()) == said
    (folder / "told").unlink()
    assert {*fake.lines[0]} >= {
        f"experiment={folder}/mine.yaml",
        "run.root=runs",
        "run.name=mine-0001",
    }

    with monkeypatch.context() as patch:
        patch.setattr(retrain, "start", None)  # the quick look is enough
        assert run(*mine)[1]["outcome"] == "nothing_to_do"
        assert run("experiment=mine.yaml")[0] == 0
    (folder / "mine.yaml").write_text(f"# a comment\n{EXPERIMENT}")
    assert unchanged.look(mine) is None
    assert run(*mine)[1]["outcome"] == "nothing_to_do"
    assert not (folder / "told").exists()

    code, said, _ = run(*mine, "train.optim.lr=0.01", "--why")
    assert (code, said["outcome"], said["run"]) == (0, "would_start", None)
    assert said["changes"] == ["train: optim.lr: 0.001, now 0.01"]
    assert len(fake.ran) == 3

    fake.gate = "failed"
    code, said, _ = run(*mine, "train.optim.lr=0.01")
    assert (code, said["outcome"], said["run"], said["current"]) == (
        0,
        "rejected",
        "mine-0002",
        "mine-0001",
    )
    assert "optim.lr=0.01" in [line for line in fake.lines if "train.py" in line[1]][-1]
    assert run(*mine, "train.optim.lr=0.02", "fail_on_reject=true")[0] == 1
    assert sorted(path.name for path in (folder / "runs").iterdir()) == [
        "mine-0001", "mine-0002", "mine-0003", "mine-series",
    ]  # fmt: skip

    fake.gate = "undecided"
    assert run(*mine, "train.optim.lr=0.03")[0] == 3
    fake.gate, fake.ends["finetune"] = "passed", 1
    code, said, err = run(*mine)
    assert (code, said["outcome"]) == (70, "failed")
    assert "error: finetune of mine-0005 ended with exit code 1; what it said is above" in err
    assert json.loads((folder / "told").read_bytes()) == said
    fake.ends["finetune"] = 2
    assert run(*mine)[0] == 2
    fake.ends["finetune"] = 75
    code, said, err = run(*mine)
    assert (code, said["outcome"]) == (75, "busy")
    with locked(folder / "runs" / "mine-series"):
        code, said, err = run(*mine)
    assert (code, said["outcome"]) == (75, "busy")
    assert f"process {os.getpid()} " in err
    fake.ends.clear()

    assert run(*mine)[1]["current"] == "mine-0005"


def test_a_signal_ends_it_with_130_and_it_goes_on(run, fake):
    def interrupted():
        raise KeyboardInterrupt("SIGTERM")

    fake.before["finetune"] = interrupted
    code, said, err = run("experiment=mine.yaml", "--json")
    assert (code, said["outcome"], said["current"]) == (130, "interrupted", None)
    assert "interrupted: SIGTERM; the same command again resumes" in err
    fake.before.clear()
    assert run("experiment=mine.yaml", "--json")[1]["current"] == "mine-0001"
    assert fake.ran.count("curate mine-0001") == 1


def test_messages_keep_their_secrets(run, folder):
    text = EXPERIMENT.replace("cat > told; false", "true # geheim")
    (folder / "mine.yaml").write_text(text)
    run("experiment=mine.yaml", "notify.url=http://127.0.0.1:9/geheim", "notify.timeout_s=1")
    for path in (folder / "runs").rglob("*"):
        assert path.is_dir() or b"geheim" not in path.read_bytes(), path
    assert Record.load(folder / "runs" / "mine-0001").arguments[1] == "notify.url=***"


def test_a_folder_of_runs_elsewhere_of_any_name(run, folder):
    where = "run.root=~odd/[a] (b), c"
    code, said, _ = run("experiment=mine.yaml", where, "run.name=it's", "--json")
    assert (code, said["current"]) == (0, "it's-0001")
    assert (folder / "~odd" / "[a] (b), c" / "it's-series" / "current.json").is_file()
    assert (
        run("experiment=mine.yaml", where, "run.name=it's", "--json")[1]["outcome"]
        == "nothing_to_do"
    )


SEVERAL = EXPERIMENT.replace(" dataset.root: pictures,", "").replace(
    "retrain: {",
    "retrain: {datasets: {own: {curate: {dataset.root: pictures}}, "
    "photos: {weight: 0.3, curate: {dataset.root: photos}}}, ",
)


def test_several_data_sets_from_an_experiment(run, fake, folder, monkeypatch):
    """Promoted, nothing to do by the quick look, a weight that is typed, a picture that is new."""
    (folder / "mine.yaml").write_text(SEVERAL)
    (folder / "photos").mkdir()
    (folder / "photos" / "p.png").write_text("p")
    mine = ("experiment=mine.yaml", "--json")
    assert run(*mine)[1]["current"] == "mine-0001"
    assert fake.ran[:2] == ["curate mine-0001-own", "curate mine-0001-photos"]
    assert {"dataset.root='photos'", "run.name=mine-0001-photos"} < {*fake.lines[1]}
    assert "data.runs={mine-0001-own: 1.0, mine-0001-photos: 0.3}" in fake.lines[2]
    with monkeypatch.context() as patch:
        patch.setattr(retrain, "start", None)  # the quick look is enough
        assert run(*mine)[1]["outcome"] == "nothing_to_do"
    typed = (*mine, "datasets.photos.weight=0.5", "datasets.photos.curate.split.val=0.1", "--why")
    assert run(*typed)[1]["changes"] == [
        "curate photos: split.val: 0.05, now 0.1",
        "datasets.photos.weight: 0.3, now 0.5",
    ]
    (folder / "photos" / "q.png").write_text("q")
    assert unchanged.look(mine) is None
    code, said, _ = run(*mine)
    assert (code, said["current"]) == (0, "mine-0002")
    assert said["changes"] == [f"photos: {folder}/photos/q.png: new"]
    assert run(*mine)[1]["outcome"] == "nothing_to_do"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["experiment=mine.yaml", "datasets.photos.weight=0"], "weight=0 is out of range"),
        (["experiment=mine.yaml", "datasets.photos-2024.weight=1"], "Type datasets.photos_2024"),
        (
            ["experiment=mine.yaml", "datasets.photos.curate.split.val=0"],
            "there is no data set photos",
        ),
        (["experiment=mine.yaml", "keep=0"], "keep=0 is out of range; accepted: null or > 0"),
        (["experiment=mine.yaml", "start_from=last"], "accepted: base, promoted"),
        (["experiment=mine.yaml", "until=export"], "accepted: curate, finetune, evaluate, promote"),
        (["experiment=mine.yaml", "optim.lr=1"], "there is no key optim.lr"),
        (["experiment=mine.yaml", "train.optim.lr=x"], "settings of train: optim.lr must be"),
        (["experiment=mine.yaml", "train.samples=3"], "type train.train.samples=3"),
        (["experiment=mine.yaml", "run.name=a/b"], "Type run.root=a run.name=b"),
        (["experiment=mine.yaml", "launch=torchrum -n 2"], "there is no program torchrum"),
        (["-m", "experiment=mine.yaml", "keep=1,2"], "-m does not work with a retraining"),
        (["keep=2"], "what is to be retrained? Type experiment=FILE.yaml"),
    ],
)
def test_mistakes_are_answered_before_anything_is_made(run, fake, folder, arguments, says):
    code, _, err = run(*arguments)
    assert says in err
    assert code == 2
    assert fake.ran == []
    assert not (folder / "runs").exists()


def test_nothing_heavy_before_the_settings_are_right(folder):
    code = (
        "import sys; sys.argv[1:] = ['experiment=mine.yaml', 'keep=0']\n"
        "from workflows import retrain\n"
        "try: retrain.main()\n"
        "finally: print({'torch', 'diffusers', 'pandas', 'open_clip'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stdout.strip() == "set()", done.stderr
