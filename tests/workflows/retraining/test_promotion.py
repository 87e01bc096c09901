"""Who is promoted, by hand and back, and which runs are deleted."""

import shutil
from dataclasses import replace

import pytest

from curate.run.files import write_certified
from curate.run.removals import Removals, write_removals
from curate.run.schema import UserError
from evaluate import results
from evaluate.results import Check
from tests.workflows.retraining import conftest
from tests.workflows.retraining.conftest import JUDGED
from workflows.retraining import promotion
from workflows.retraining.steps import Failed


def decided(compared_with="", *, gate="passed", kept=450, exported=450, checks=()):
    verdict = replace(JUDGED.verdict, kept=kept, exported=exported)
    found = replace(JUDGED, gate=gate, verdict=verdict, checks=checks)
    return promotion.decide(found, compared_with)


@pytest.mark.parametrize(
    ("values", "outcome", "export"),
    [
        ({}, "promoted", "finetune/export"),
        ({"gate": "warned"}, "promoted", "finetune/export"),
        ({"kept": 225}, "promoted", "finetune/export"),
        ({"kept": 0}, "rejected", ""),
        ({"gate": "failed"}, "rejected", "finetune/export"),
        ({"gate": "failed", "kept": 0}, "rejected", ""),
        ({"gate": "undecided"}, "undecided", "finetune/export"),
        ({"gate": "undecided", "kept": 225}, "undecided", "finetune/export"),
    ],
)
def test_a_decision_follows_the_gate_and_the_kept_checkpoint(values, outcome, export):
    found = decided(**values)
    assert (found.outcome, found.export) == (outcome, export)
    assert found.kept == (450 if values.get("kept", 450) else 0)
    assert "6.1 % less loss" in found.sentence


@pytest.mark.parametrize(("on", "outcome"), [("pass", "promoted"), ("fail", "rejected")])
def test_an_undecided_gate_is_what_the_settings_make_of_it(on, outcome):
    told = {**JUDGED.provenance["evaluate"], "gate": {"on_undecided": on}}
    found = replace(JUDGED, gate="undecided", provenance={**JUDGED.provenance, "evaluate": told})
    decision = promotion.decide(found, "")
    assert decision.outcome == outcome
    assert f"gate.on_undecided={on}" in decision.sentence


def test_the_sentence_names_what_broke_and_nothing_else():
    checks = tuple(
        Check(f"of_{status}", "m", "< 0 %", "3 %", status, "")
        for status in ("passed", "failed", "undecided", "warned")
    )
    assert decided(gate="failed", checks=checks).sentence.startswith(
        "The gate failed (of_failed: 3 %, has to be < 0 %). Step"
    )
    assert decided(gate="undecided", checks=checks).sentence.startswith(
        "The gate is undecided (of_undecided: 3 %, has to be < 0 %). Step"
    )
    assert decided(gate="warned", checks=checks).sentence.endswith(
        "The gate warns (of_warned: 3 %, has to be < 0 %)."
    )
    assert "compared with x-0001" in decided("x-0001").sentence


def test_without_a_report_there_is_nothing_to_decide_by(tmp_path):
    with pytest.raises(Failed, match="wrote no report"):
        promotion.decide(None, "")
    assert promotion.judged(tmp_path) is None


def test_a_report_counts_only_when_the_evaluation_came_to_its_end(team):
    team.retrain(until="evaluate")
    folder = team.series.run_dir("mine-0001") / "evaluate"
    assert promotion.judged(folder.parent).gate == "passed"
    results.save(replace(JUDGED, gate="failed"), folder / "report.json")  # not in checksums.json
    assert promotion.judged(folder.parent) is None
    (folder / "checksums.json").unlink()
    assert promotion.judged(folder.parent) is None


@pytest.fixture
def two(team):
    team.retrain()
    team.add("e")
    team.retrain()
    return team


def test_back_and_forth(two, capsys):
    promotion.roll_back(two.series, print)
    current = two.series.current()
    assert (current.run, current.previous, current.event) == (
        "mine-0001",
        "mine-0002",
        "rolled back",
    )
    assert "rolled back from mine-0002 to mine-0001: " in capsys.readouterr().out
    assert two.events()[-1] == ("rolled back", "mine-0001", "mine-0001")
    assert two.series.history()[-1].sentence == "Back from mine-0002 to mine-0001."
    assert two.retrain().outcome == "nothing_to_do"
    assert two.current() == "mine-0001"
    with pytest.raises(UserError, match="mine-0001 is in use since the last --rollback"):
        promotion.roll_back(two.series, print)
    promotion.by_hand(two.series, "mine-0002", print)
    assert two.current() == "mine-0002"


def test_by_hand_whatever_the_gate_said(two, capsys):
    two.commands.gate = "failed"
    two.lr = 2.0
    two.retrain()
    promotion.by_hand(two.series, "mine-0003", print)
    current = two.series.current()
    assert (current.run, current.previous) == ("mine-0003", "mine-0002")
    assert two.series.history()[-1].sentence == (
        "mine-0003 was promoted by hand; its retraining ended rejected."
    )
    assert str(two.root / "mine-0003" / "finetune" / "export") in capsys.readouterr().out
    two.commands.gate = "passed"
    two.add("f")
    two.retrain()
    assert two.commands.lines[-1][-3:][0] == "gate.against=mine-0003"


@pytest.mark.parametrize("damage", ["{", "", '{"run": "mine-0007"}'])
def test_a_damaged_pointer_is_mended_as_its_message_says(two, damage):
    path = two.series.folder / "current.json"
    path.write_text(damage)
    with pytest.raises(UserError, match=r"current\.json is damaged"):
        promotion.roll_back(two.series, print)
    promotion.by_hand(two.series, "mine-0001", print)
    current = two.series.current()
    assert (current.run, current.previous) == ("mine-0001", "mine-0002")
    assert two.events()[-1] == ("promoted by hand", "mine-0001", "mine-0001")
    assert two.retrain().outcome == "nothing_to_do"


def test_what_cannot_be_promoted_is_refused_with_what_to_type(two):
    two.commands.kept = 0
    two.lr = 2.0
    two.retrain()
    two.lr, two.commands.kept = 3.0, 450
    two.retrain(until="evaluate")
    series = two.series
    known = r"type python -m workflows\.promote with one of mine-0001, mine-0002"
    with pytest.raises(UserError, match=rf"mine-0003 keeps no checkpoint .*{known}"):
        promotion.by_hand(series, "mine-0003", print)
    with pytest.raises(UserError, match=rf"mine-0004 is no judged retraining; {known}"):
        promotion.by_hand(series, "mine-0004", print)
    shutil.rmtree(series.run_dir("mine-0001"))
    with pytest.raises(UserError, match=r"mine-0001 is gone; type .* one of mine-0002"):
        promotion.roll_back(series, print)
    assert two.current() == "mine-0002"


def test_one_that_has_not_ended_is_not_promoted_by_hand(two, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    two.add("f")
    with monkeypatch.context() as patch:
        patch.setattr(promotion, "promote", interrupted)
        with pytest.raises(KeyboardInterrupt):
            two.retrain()
    with pytest.raises(UserError, match="mine-0003 has not come to its end; type the same"):
        promotion.by_hand(two.series, "mine-0003", print)


def test_without_a_run_before_there_is_no_way_back(team):
    with pytest.raises(UserError, match="mine has no run that was promoted before; no run has an"):
        promotion.roll_back(team.series, print)
    team.retrain()
    with pytest.raises(
        UserError, match=r"no run that was promoted before; type .* one of mine-0001"
    ):
        promotion.roll_back(team.series, print)


def several(team, outcomes, **config):
    """Retrain with an outcome each; new data each time."""
    for number, gate in enumerate(outcomes):
        team.commands.gate = gate
        team.add(f"new{number}-{len(team.runs())}")
        team.retrain(**config)
    return [name[-1] for name in team.runs()]


def test_only_the_last_stay(team):
    assert several(team, ["failed"] * 5, keep=2) == ["4", "5"]


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize("keep", [None, 5, 9])
def test_all_stay_where_asked(team, keep):
    assert several(team, ["passed"] * 5, keep=keep) == ["1", "2", "3", "4", "5"]


@pytest.mark.slow
def test_the_promoted_one_and_the_one_before_stay(team):
    assert several(team, ["passed", "passed", *["failed"] * 4], keep=1) == ["1", "2", "6"]
    assert several(team, ["passed"], keep=1) == ["2", "7"]


def test_what_a_needed_run_began_with_stays(team):
    found = several(team, ["passed"] * 4, keep=1, start_from="promoted")
    assert found == ["1", "2", "3", "4"]


def test_a_number_is_not_given_again(team):
    several(team, ["failed"] * 3, keep=1)
    assert team.runs() == ["mine-0003"]
    assert len(team.series.history()) == 3
    assert several(team, ["failed"], keep=1) == ["4"]


def test_a_smaller_keep_counts_at_once(team):
    several(team, ["failed"] * 4, keep=None)
    assert team.retrain(keep=1).outcome == "nothing_to_do"
    assert team.runs() == ["mine-0004"]


def test_an_abandoned_run_goes_with_those_before_it(team):
    team.retrain(until="curate")
    team.lr = 2.0
    assert several(team, ["failed"], keep=2) == ["1", "2"]
    assert several(team, ["failed"], keep=2) == ["2", "3"]


def test_a_run_stays_until_its_removals_are_handed_on(team):
    several(team, ["failed"] * 2, keep=2)

    def remove():
        folder = team.series.run_dir("mine-0001") / "curate"
        write_removals(folder, Removals(keys=frozenset({"a"})))

    team.commands.before["finetune"] = remove  # after the new run took over what was removed
    assert several(team, ["failed"], keep=1) == ["1", "3"]
    team.commands.before.clear()
    found = team.retrain(keep=1)
    assert found.changes[0].startswith("removed pictures: 1 listed")
    assert team.runs() == ["mine-0004"]


def test_a_run_stays_while_another_training_stands_on_it(team):
    several(team, ["failed"] * 2, keep=2)
    training = team.root / "by-hand" / "finetune"
    (training / "checkpoints" / "step-00000010").mkdir(parents=True)
    (training / "config.yaml").write_text("data:\n  run: mine-0001\n")
    several(team, ["failed"], keep=1)
    assert team.runs() == ["by-hand", "mine-0001", "mine-0003"]


def test_runs_of_others_are_left_alone(team):
    for name in ("other-0001", "mine", "mine-0002x", "mine-12"):
        (team.root / name / "curate").mkdir(parents=True)
    several(team, ["failed"] * 3, keep=1)
    assert team.runs() == ["mine", "mine-0002x", "mine-0003", "mine-12", "other-0001"]


@pytest.mark.parametrize(("keep", "left"), [("auto", "1345"), ("1", "135"), ("null", "12345")])
def test_checkpoints_that_no_verdict_chose_go_with_the_end(team, monkeypatch, keep, left):
    """Steps 100 to 500, of which the first is exported and the third kept; two of them are the newest."""

    def plant():
        finetune_dir = team.series.run_dir(team.runs()[-1]) / "finetune"
        for number in range(1, 6):
            folder = finetune_dir / "checkpoints" / f"step-{number:06d}00"
            write_certified(folder / "state.json", {"step": 100 * number, "samples_seen": number})
        text = f"checkpoint: {{keep: {keep}}}\nmethod: {{name: full}}\n"
        (finetune_dir / "config.yaml").write_text(text)

    verdict = replace(JUDGED.verdict, kept=300, exported=100, last=500)
    monkeypatch.setattr(conftest, "JUDGED", replace(JUDGED, verdict=verdict))
    team.commands.before["evaluate"] = plant
    team.commands.kept, team.commands.exported = 300, 100
    team.retrain()
    folders = sorted((team.series.run_dir("mine-0001") / "finetune/checkpoints").glob("step-*"))
    assert "".join(folder.name[-3] for folder in folders) == left
