"""The quick look: says nothing to do only where that is so, and imports nothing heavy."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from curate.run.removals import Removals, write_removals
from workflows.retraining import commands, inputs, unchanged
from workflows.retraining.input_files import Root
from workflows.retraining.series import Series

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def looked(team, monkeypatch, tmp_path):
    """A team of which one run has ended, with a quick look in place of the full one."""
    monkeypatch.chdir(tmp_path)
    settings = tmp_path / "mine.yaml"
    settings.write_text("train: {optim.lr: 1.0}\n")
    files = inputs._settings_files
    monkeypatch.setattr(
        inputs, "_settings_files", lambda _: iter([Root("experiment", str(settings), "experiment")])
    )
    monkeypatch.setattr(unchanged, "_version", lambda name: team_versions(name))
    assert files
    typed("experiment=mine.yaml")
    team.retrain()
    return team


def team_versions(name):
    from curate.run.provenance import _version

    return ".".join(map(str, sys.version_info[:3])) if name == "python" else _version(name) or ""


def typed(*arguments):
    commands.remember([*arguments], {})
    return [*arguments]


def look(*arguments):
    return unchanged.look([*arguments] or ["experiment=mine.yaml"])


def test_nothing_changed(looked):
    assert look() == unchanged.Unchanged(Path("runs"), "mine")
    assert look("experiment=mine.yaml", "--json") == look()
    assert look("experiment=mine.yaml", "--why") == look()


CHANGES = {
    "a new file": lambda team: team.add("e"),
    "a file's content": lambda team: (team.pictures / "a.txt").write_text("other"),
    "a file that was touched": lambda team: os.utime(team.pictures / "a.txt"),
    "a file less": lambda team: (team.pictures / "a.txt").unlink(),
    "code": lambda team: (team.code / "module.py").write_text("2"),
    "new code": lambda team: (team.code / "more.py").write_text("2"),
    "the experiment's file": lambda team: Path("mine.yaml").write_text("train: {optim.lr: 2.0}\n"),
    "a removal": lambda team: write_removals(
        team.series.run_dir("mine-0001") / "curate", Removals(keys=frozenset({"a"}))
    ),
    "a run that has not ended": lambda team: (
        setattr(team, "lr", 2.0),
        team.retrain(until="curate"),
    ),
    "a damaged pointer": lambda team: (team.series.folder / "current.json").write_text("{"),
    "damaged inputs": lambda team: (team.series.folder / "inputs.json").write_text("{"),
    "a damaged record": lambda team: (team.series.run_dir("mine-0001") / "retrain.json").write_text(
        "{"
    ),
    "no runs": lambda team: team.series.run_dir("mine-0001").rename("elsewhere"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_whatever_changed_is_looked_at_in_full(looked, change):
    CHANGES[change](looked)
    assert look() is None


@pytest.mark.parametrize("name", ["torch", "timm", "python"])
@pytest.mark.parametrize("found", ["9.9", ""])
def test_another_version_or_none_is_looked_at_in_full(looked, monkeypatch, name, found):
    monkeypatch.setattr(unchanged, "_version", lambda n: found if n == name else team_versions(n))
    assert look() is None


@pytest.mark.parametrize(
    "arguments",
    [
        ["experiment=mine.yaml", "train.optim.lr=2"],
        ["experiment=./mine.yaml"],
        [],
        ["experiment=mine.yaml", "run.root=elsewhere"],
        ["experiment=mine.yaml", "fingerprint=content"],
        ["experiment=mine.yaml", "--help"],
    ],
)
def test_other_words_are_looked_at_in_full(looked, arguments):
    assert unchanged.look(arguments) is None


def test_another_folder_is_looked_at_in_full(looked, tmp_path, monkeypatch):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "runs").symlink_to(tmp_path / "runs")
    monkeypatch.chdir(tmp_path / "deep")
    assert look() is None


@pytest.mark.parametrize("config", [{"fingerprint": "content"}, {"json": True}])
def test_what_wants_more_than_a_quick_look_never_gets_one(looked, config):
    """``json: true`` of an experiment's file is not known before that is read."""
    looked.add("e")
    looked.retrain(**config)
    assert look() is None
    looked.retrain()
    assert look() is not None


def test_touched_files_are_looked_at_once(looked):
    os.utime(looked.pictures / "a.txt")
    assert look() is None
    assert looked.retrain().outcome == "nothing_to_do"
    assert look() is not None


def test_a_comment_in_the_experiment_is_nothing_to_do(looked):
    Path("mine.yaml").write_text("# a comment\ntrain: {optim.lr: 1.0}\n")
    assert look() is None
    assert looked.retrain().outcome == "nothing_to_do"
    assert look() is not None


def test_a_removal_after_the_pictures_were_packed_is_not_overlooked(team, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    typed("experiment=mine.yaml")
    monkeypatch.setattr(unchanged, "_version", team_versions)

    def remove():
        folder = team.series.run_dir("mine-0001") / "curate"
        write_removals(folder, Removals(keys=frozenset({"a"})))

    team.commands.before["finetune"] = remove
    team.retrain()
    assert look() is None
    assert team.retrain(why=True).outcome == "would_start"


def test_folders_of_another_kind_do_not_matter(looked):
    for name in ("mine-0007", "mine-x", "other-series"):
        (looked.root / name).mkdir()
    assert look() is not None


def test_a_series_of_any_name(team, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    typed("experiment=mine.yaml")
    monkeypatch.setattr(unchanged, "_version", team_versions)
    team.series = Series(team.root, "[a]*, 'b'")
    team.retrain()
    assert look() == unchanged.Unchanged(Path("runs"), "[a]*, 'b'")
    assert team.runs()[0] == "[a]*, 'b'-0001"


def test_it_imports_nothing_heavy():
    code = (
        "import sys; from workflows.retraining import unchanged; unchanged.look(['experiment=x'])\n"
        "print({'hydra', 'omegaconf', 'numpy', 'torch', 'pandas'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "set()", done.stderr
