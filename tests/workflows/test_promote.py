"""``python -m workflows.promote``: by hand, back, and what it refuses."""

import pytest

from curate.run import cli
from curate.run.locks import locked
from workflows import promote


@pytest.fixture
def run(team, monkeypatch, capsys):
    monkeypatch.chdir(team.root.parent)
    team.retrain()
    team.add("e")
    team.retrain()

    def start(*arguments):
        monkeypatch.setattr("sys.argv", ["promote", *arguments])
        capsys.readouterr()
        code = 0
        try:
            cli.run(promote.main)
        except SystemExit as leaving:
            code = leaving.code or 0
        said = capsys.readouterr()
        return code, said.out, said.err

    return start


@pytest.mark.parametrize("name", ["mine-0001", "runs/mine-0001", "./runs/mine-0001/"])
def test_a_run_by_its_name_or_folder(run, team, name):
    code, out, _ = run(name)
    assert (code, team.current()) == (0, "mine-0001")
    assert out.startswith("promoted mine-0001: ")


@pytest.mark.parametrize("named", [[], ["mine"], ["mine-series"]])
def test_back_to_the_run_before(run, team, named):
    code, out, _ = run("--rollback", *named)
    assert (code, team.current()) == (0, "mine-0001")
    assert out.startswith("rolled back from mine-0002 to mine-0001: ")


def test_below_another_root(run, team, tmp_path, monkeypatch):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert run("--rollback", "mine", "--root", str(team.root))[0] == 0
    assert run("mine-0002", "--root", "../runs")[0] == 0
    assert team.current() == "mine-0002"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["mine-0009"], "there is no run mine-0009, neither that folder nor runs/mine-0009"),
        (
            ["mine"],
            "mine is a series, and a run of it is promoted; type python -m workflows.promote mine-0002, the",
        ),
        (["runs/mine-series"], "python -m workflows.history lists all"),
        (["pictures"], "pictures is no run of a retraining; the runs are called NAME-0001"),
        (["--rollback", "ours"], "ours is no series; runs holds mine. A series is made by"),
        (["--rollback", "x", "--root", "no"], "no holds none. A series is made by"),
        ([], "type a RUN to promote, or --rollback"),
        (["mine-0001", "--rollback", "mine"], "type a RUN to promote, or --rollback"),
    ],
)
def test_mistakes_are_answered_by_what_to_type(run, team, arguments, says):
    code, _, err = run(*arguments)
    assert code == 2
    assert says in err
    assert team.current() == "mine-0002"


def test_of_several_series_one_has_to_be_named(run, team):
    (team.root / "other-series").mkdir()
    code, _, err = run("--rollback")
    assert code == 2
    assert "which series? Type its name; runs holds mine, other" in err


def test_a_retraining_at_work_is_named(run, team):
    with locked(team.series.folder):
        code, _, err = run("--rollback")
    assert code == 75
    assert "another process is at work in" in err
