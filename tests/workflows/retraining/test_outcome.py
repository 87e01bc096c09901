"""How a start ends: what it prints, its exit code, and who hears of it."""

import json

import pytest

from curate.run.schema import Busy, UserError
from workflows.retraining import notify
from workflows.retraining.config import NotifyConfig, RetrainConfig
from workflows.retraining.outcome import Outcome, nothing_to_do, reported
from workflows.retraining.steps import Failed


@pytest.fixture
def told(monkeypatch):
    found = []
    monkeypatch.setattr(notify, "tell", lambda config, outcome, say: found.append(outcome))
    return found


@pytest.mark.parametrize(
    ("word", "code", "strict"),
    [
        ("promoted", 0, 0),
        ("rejected", 0, 1),
        ("undecided", 3, 3),
        ("nothing_to_do", 0, 0),
        ("started", 0, 0),
        ("would_start", 0, 0),
    ],
)
def test_exit_codes(word, code, strict):
    assert Outcome(word, "").exit_code(fail_on_reject=False) == code
    assert Outcome(word, "").exit_code(fail_on_reject=True) == strict


def test_json_is_the_last_line(capsys):
    found = Outcome("promoted", "Better.", "mine-0002", "mine-0002", "r.html", ("a: new",))
    found.say(as_json=False)
    assert capsys.readouterr().out == "promoted  Better.\nreport    r.html\nin use    mine-0002\n"
    found.say(as_json=True)
    last = capsys.readouterr().out.splitlines()[-1]
    assert json.loads(last) == {
        "outcome": "promoted",
        "sentence": "Better.",
        "run": "mine-0002",
        "current": "mine-0002",
        "report": "r.html",
        "changes": ["a: new"],
    }


@pytest.mark.parametrize(
    ("error", "word", "heard"),
    [
        (Busy("x"), "busy", False),
        (KeyboardInterrupt("x"), "interrupted", False),
        (UserError("x"), "failed", True),
        (RuntimeError("x"), "failed", True),
        (OSError("x"), "failed", True),
    ],
)
def test_an_error_is_reported_and_goes_on(team, told, capsys, error, word, heard):
    team.retrain()

    def fail():
        with reported(RetrainConfig(json=True)) as report:
            report.on(team.series)
            raise error

    with pytest.raises(type(error)):
        fail()
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (found["outcome"], found["sentence"], found["current"]) == (word, "x", "mine-0001")
    assert told == ([found] if heard else [])


def test_a_failed_step_ends_with_70(told, capsys):
    with pytest.raises(SystemExit) as leaving, reported(RetrainConfig()):
        raise Failed("finetune ended with 1")
    assert leaving.value.code == 70
    assert capsys.readouterr().err == "error: finetune ended with 1\n"
    assert told[0]["sentence"] == "finetune ended with 1"


def test_an_end_is_told_but_not_what_only_would_be(told, capsys):
    for why in (False, True):
        with reported(RetrainConfig(why=why)) as report:
            report.say(Outcome("promoted", "Better."))
    assert len(told) == 1
    assert capsys.readouterr().out.count("Better.") == 2


def test_a_message_that_fails_changes_no_end(team, capsys):
    config = RetrainConfig(notify=NotifyConfig(command="exit 3", attempts=1))
    with reported(config) as report:
        report.say(team.retrain())
    said = capsys.readouterr()
    assert "promoted  Step 450" in said.out
    assert said.err == "warning: notify.command was not delivered in 1 tries: exit code 3\n"


def test_nothing_to_do_names_the_last_that_was_judged(team):
    team.retrain()
    team.lr = 2.0
    team.retrain(until="curate")
    team.lr = 1.0
    team.retrain()
    (team.root / "mine-0009").mkdir()
    found = nothing_to_do(team.root, "mine")
    assert "when mine-0001 ended (it was promoted): no file, setting, code" in found.sentence
    assert found.sentence.startswith("nothing to do since 20")
    assert " UTC, " in found.sentence
    assert found.current == "mine-0001"
    (team.series.run_dir("mine-0001") / "retrain.html").write_text("")
    assert nothing_to_do(team.root, "mine").report == str(team.root / "mine-0001" / "retrain.html")
