"""The table of planted trainings: which runs are made, what is right of a report, and what is printed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from evaluate.selftest.commands import Done
from tests.finetune.conftest import curate
from workflows.bench import planted, twins, verdicts
from workflows.bench.__main__ import main
from workflows.bench.planted import ROWS, TRAININGS, Found, Planting, Report


def report(code: int = 0, **changes) -> Report:
    """Of a healthy run, with ``changes``."""
    content = {
        "verdict": {"word": "improving", "kept": 450, "last": 450} | changes.pop("verdict", {}),
        "gate": "warned",
        "findings": [
            {"part": "result", "state": "good", "text": "Better."},
            {"part": "cost", "state": "warn", "text": "Follows captions less."},
            {"part": "cost", "state": "good", "text": "Nothing is copied."},
        ],
        "checks": [
            {"name": "follows_captions", "status": "warned"},
            {"name": "captions_matter", "status": "passed"},
        ],
        "metrics": {
            name: {"value": 0.01, "low": -0.01, "high": 0.03}
            for name in ("copying", "copying_exported")
        },
    }
    return Report(content | changes, code)


NOTHING_KEPT = {"kept": 0, "last": 150}


def test_a_healthy_run():
    right = TRAININGS["demo"].right
    assert right(report()) == []
    assert right(report(verdict={"word": "overfitting"}))
    assert right(report(gate="undecided"))
    assert right(report(verdict={"kept": 0}))
    assert right(report(findings=[])) == ["the headline tells no cost"]


def test_pictures_learnt_by_heart():
    right = TRAININGS["few"].right
    said = {"word": "overfitting", "kept": 75, "last": 300}
    assert right(report(verdict=said)) == []
    assert right(report(verdict=said | {"kept": 0}, metrics={})) == []
    assert right(report(verdict=said | {"kept": 300}))
    assert right(report(verdict=said | {"word": "converged"}))
    assert right(report(verdict=said, metrics={}))
    copies = {"copying": {"value": 0.2, "low": 0.1, "high": 0.3}}
    assert right(report(verdict=said, metrics=copies))


@pytest.mark.parametrize(("row", "word"), [("small_rate", "no_effect"), ("large_rate", "diverged")])
def test_nothing_is_kept(row, word):
    right = TRAININGS[row].right
    assert right(report(verdict=NOTHING_KEPT | {"word": word}, gate="failed")) == []
    assert right(report(verdict=NOTHING_KEPT | {"word": word}))
    assert right(report(verdict=NOTHING_KEPT | {"word": word, "kept": 20}, gate="failed"))
    assert right(report(verdict=NOTHING_KEPT, gate="failed"))


def test_a_training_that_diverges_and_goes_on_is_wrong():
    said = NOTHING_KEPT | {"word": "diverged", "last": 225}
    assert TRAININGS["large_rate"].right(report(verdict=said, gate="failed"))


def test_wrong_captions():
    def checked(status: str) -> list[dict]:
        return [{"name": "captions_matter", "status": status}]

    all_wrong, half = TRAININGS["wrong99"].right, TRAININGS["wrong50"].right
    assert all_wrong(report(1, checks=checked("failed"))) == []
    assert all_wrong(report(3, checks=checked("undecided")))
    assert half(report(3, checks=checked("undecided"))) == []
    assert half(report(0, checks=checked("passed")))
    assert all_wrong(report(1, checks=[])) == ["the rule on captions says nothing"]


class Commands:
    """Stands for the commands: notes them, and writes what they would."""

    def __init__(self, root: Path, refuses: bool = True) -> None:
        self.root, self.refuses, self.typed = root, refuses, []

    def __call__(self, log: Path, module: str, *arguments: str, expected=(0,)) -> Done:
        self.typed.append((module, arguments))
        name = next(a for a in arguments if a.startswith("run.name=")).removeprefix("run.name=")
        folder = self.root / name
        if module == "curate":
            (folder / "curate").mkdir(parents=True)
            (folder / "curate" / "manifest.json").write_text("{}")
        if module == "evaluate":
            (folder / "evaluate").mkdir(parents=True)
            content = report(1, checks=[{"name": "captions_matter", "status": "failed"}]).content
            (folder / "evaluate" / "report.json").write_text(json.dumps(content))
            return Done(1, "")
        if module == "finetune" and "refused" in name and self.refuses:
            return Done(2, "error: the captions are wrong")
        return Done(0, "")


@pytest.mark.parametrize("refuses", [True, False])
def test_a_row_is_curated_refused_trained_and_judged(monkeypatch, tmp_path, refuses):
    monkeypatch.setattr(planted.commands, "run", ran := Commands(tmp_path, refuses))
    found = TRAININGS["wrong99"].run(Planting(tmp_path, 1), "wrong99")
    assert [module for module, _ in ran.typed] == ["curate", "finetune", "finetune", "evaluate"]
    curated, refused, trained, _ = (set(arguments) for _, arguments in ran.typed)
    assert {"dataset.mismatch=0.99", "dataset.seed=1", "split.seed=1", "filters=none"} <= curated
    assert {"run.name=wrong99-refused-1", "data.run=wrong99-1"} <= refused
    assert not any(text.startswith("doctor") for text in refused)
    assert {"run.name=wrong99-1", "doctor.captions=off", "train.seed=1"} <= trained
    assert found.headline == "Better. Follows captions less. Nothing is copied."
    assert found.values["copying"] == "+0.01 [-0.01, +0.03]"
    assert found.wrong == (
        () if refuses else ("the training was not refused for its captions (exit code 0)",)
    )


def test_rows_of_one_seed_share_the_demos_data(monkeypatch, tmp_path):
    monkeypatch.setattr(planted.commands, "run", ran := Commands(tmp_path))
    for row in ("demo", "small_rate"):
        TRAININGS[row].run(Planting(tmp_path, 0), row)
    modules = [module for module, _ in ran.typed]
    assert modules == ["curate", "finetune", "evaluate", "finetune", "evaluate"]
    assert all("data.run=curated-0" in a for module, a in ran.typed if module == "finetune")


def test_finished_runs_are_not_made_again_and_the_table_has_all(monkeypatch, tmp_path, capsys):
    made = []

    class Row:
        planted, expected = "planted | so", "said"

        def run(self, planting: Planting, name: str) -> Found:
            made.append((name, planting.seed))
            wrong = ("the gate is passed",) if planting.seed else ()
            return Found("A sentence.", {"gate": "failed"}, wrong)

    monkeypatch.setattr(verdicts, "ROWS", {"one": Row(), "other": Row()})
    arguments = ["verdicts", "--root", str(tmp_path)]
    assert main([*arguments, "--seeds", "0", "one"]) == 0
    assert main([*arguments, "--seeds", "0,1"]) == 1
    assert made == [("one", 0), ("other", 0), ("one", 1), ("other", 1)]
    text = (tmp_path / "verdicts.md").read_text()
    assert text in capsys.readouterr().out
    lines = text.splitlines()
    assert len({line.replace("\\|", "").count("|") for line in lines[:6]}) == 1
    assert lines[2].startswith("| planted \\| so | 0 | – | failed |")
    assert lines[2].endswith("| right |")
    assert lines[3].endswith("| the gate is passed |")
    assert "seed 1 (expected: said). A sentence." in lines[8]
    stored = json.loads((tmp_path / "verdicts.json").read_text())
    assert [(each["row"], each["seed"]) for each in stored] == [
        ("one", 0), ("one", 1), ("other", 0), ("other", 1),
    ]  # fmt: skip


def test_an_unknown_row_is_an_error(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["verdicts", "demos"])
    assert ended.value.code == 2
    assert f"choose from: {', '.join(ROWS)}" in capsys.readouterr().err


def test_twins_are_planted_and_counted(monkeypatch, tmp_path):
    monkeypatch.setattr(twins, "EACH", 4)
    curate(tmp_path / "curate", {"train": 8, "val": 6})
    twins.plant(tmp_path / "curate", tmp_path / "planted", 0)
    plan = json.loads((tmp_path / "planted" / "twins.json").read_text())
    assert {kind: len(pairs) for kind, pairs in plan.items()} == {
        "cropped": 4, "rotated": 4, "shifted": 4,
    }  # fmt: skip
    names = {path.stem for path in (tmp_path / "planted" / "pictures").glob("*.png")}
    assert len(names) == 14 + 12
    assert all({key, twin} <= names for pairs in plan.values() for key, twin in pairs)
    # Which side a picture is on is known of the pictures that the curation has; twins are not in this one.
    sides = {
        kind: [[key, other] for key, other in zip(["train-000"] * 2, others, strict=True)]
        for kind, others in {
            "cropped": ["train-001", "val-000"],
            "rotated": ["train-001"] * 2,
        }.items()
    }
    (tmp_path / "planted" / "twins.json").write_text(json.dumps(sides))
    assert twins.apart(tmp_path / "planted", tmp_path / "curate") == {"cropped": 0.5, "rotated": 0}


@pytest.mark.parametrize(
    ("left", "refuses", "wrong"),
    [
        (0.02, True, ()),
        (0.3, True, ("the curation left twins on different sides",)),
        (0.02, False, ("the training was not refused for its leaks (exit code 0)",)),
    ],
)
def test_leaking_twins(monkeypatch, tmp_path, left, refuses, wrong):
    class Leaks(Commands):
        def __call__(self, log: Path, module: str, *arguments: str, expected=(0,)) -> Done:
            done = super().__call__(log, module, *arguments, expected=expected)
            refused = refuses and "doctor.leaks=refuse" in arguments
            return Done(2, "error: 30 pictures have a sibling in train") if refused else done

    monkeypatch.setattr(planted.commands, "run", ran := Leaks(tmp_path))
    monkeypatch.setattr(twins, "plant", lambda *_: None)
    monkeypatch.setattr(
        twins,
        "apart",
        lambda _, curate_dir: {"cropped": left if "joined" in str(curate_dir) else 0.5},
    )
    found = ROWS["twins"].run(Planting(tmp_path, 0), "twins")
    assert found.wrong == wrong
    assert found.headline.startswith(
        f"joined: cropped {left:.0%} apart; leaking: cropped 50% apart."
    )
    siblings = [a for _, arguments in ran.typed for a in arguments if a.startswith("split.sib")]
    assert siblings == ["split.siblings=true", "split.siblings=false"]
