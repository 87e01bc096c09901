"""The self-test passes on the judge as it is, and ends with 1 on one that is broken."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from evaluate.selftest import __main__ as command
from evaluate.selftest import captions, leaks, losses, pictures, rates, trainings
from evaluate.selftest.case import Case, Outcome
from finetune import rules
from finetune.rules import Word

RIGHT = Case("right", "x", lambda: Outcome("x", right=True))
OPEN = Case("open", "x", lambda: Outcome("no pictures", right=None))


@pytest.fixture(autouse=True)
def few(monkeypatch):
    """Simulations of few runs; how often rules err is tested with the rules."""
    for module, count in ((pictures, 10), (captions, 40), (rates, 20)):
        monkeypatch.setattr(module, "RUNS", count)
    monkeypatch.setattr(rates, "INTERVALS", 400)


@pytest.fixture
def said(monkeypatch, tmp_path, capsys):
    """A function that runs the command on planted cases and returns its exit code and its lines."""

    def run(*cases: Case) -> tuple[int, list[str]]:
        monkeypatch.setattr(command, "cases_of", lambda part, folder: cases)
        code = command.start(["losses"], tmp_path)
        return code, capsys.readouterr().out.splitlines()

    return run


@pytest.mark.parametrize("part", [losses, pictures, captions, leaks, rates])
def test_every_judgement_is_right(part):
    outcomes = {case.planted: case.judge() for case in part.cases()}
    assert len(outcomes) > 2
    assert not {planted: each.found for planted, each in outcomes.items() if not each.right}


@pytest.mark.parametrize("run", losses.RUNS, ids=lambda run: run.planted)
def test_words_do_not_hang_on_one_draw(run):
    """The planted losses are strong enough for nine in ten other draws."""
    right = []
    for seed in range(1, 21):
        evidence = run.evidence(seed)
        right.append(rules.word(evidence) in run.words and rules.kept(evidence) in run.kept)
    assert sum(right) >= 18


def test_a_broken_rule_ends_with_one(monkeypatch, tmp_path, capsys):
    """Overfitting that nobody sees any more."""
    broken = [(word, rule) for word, rule in rules.RULES if word is not Word.OVERFITTING]
    monkeypatch.setattr(rules, "RULES", tuple(broken))
    assert command.start(["losses"], tmp_path) == 1
    printed = capsys.readouterr().out
    wrong = [line for line in printed.splitlines() if line.startswith("WRONG")]
    assert len(wrong) == 1
    assert "overfitting: held-out loss turns" in wrong[0]
    assert "found: regressing" in wrong[0]
    assert f"{len(losses.RUNS) - 1} right, 1 wrong" in printed


def test_exit_codes(said):
    assert said(RIGHT)[0] == 0
    code, lines = said(RIGHT, OPEN)
    assert code == 3
    assert lines[1].startswith("open")
    assert "found: no pictures" in lines[1]
    assert "1 right, 0 wrong, 1 not judged" in lines[2]
    wrong = Case("wrong", "x", lambda: Outcome("y", right=False))
    assert said(RIGHT, OPEN, wrong)[0] == 1
    numpys = Case("numpy's", "x", lambda: Outcome("y", right=np.bool_(False)))  # type: ignore[arg-type]
    assert said(numpys)[0] == 1


def test_a_case_that_ends_with_an_error_is_wrong_and_the_others_are_judged(said):
    def fails() -> Outcome:
        raise ValueError("no such grid")

    code, lines = said(Case("fails", "x", fails), RIGHT)
    assert code == 1
    assert "ValueError: no such grid" in lines[0]
    assert lines[1].startswith("right")


def test_trainings_without_the_pictures_are_said_to_be_left_out(monkeypatch, tmp_path):
    monkeypatch.setattr(trainings, "_NEEDED", ("no_such_package",))
    outcomes = [case.judge() for case in trainings.cases(tmp_path)]
    assert {outcome.right for outcome in outcomes} == {None}
    assert all("needs no_such_package" in outcome.found for outcome in outcomes)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["loss"], "there is no part 'loss'"), (["--keep", "."], "is not empty")],
)
def test_wrong_arguments(arguments, message):
    done = subprocess.run(
        [sys.executable, "-m", "evaluate.selftest", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert message in done.stderr


@pytest.mark.slow
def test_trainings(tmp_path):
    outcomes = [case.judge() for case in trainings.cases(tmp_path)]
    assert [(outcome.found, outcome.right) for outcome in outcomes if not outcome.right] == []
