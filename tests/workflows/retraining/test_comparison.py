"""Whether a curated run can be compared with the promoted one, asked before it is trained."""

import pytest

from curate.decide.config import SMALLEST_JUDGED
from curate.run.schema import UserError
from evaluate.judged_runs import against
from evaluate.judged_runs.comparable import TRAINED_ON
from evaluate.judged_runs.judged import open_judged
from tests.evaluate.conftest import results
from tests.evaluate.planted import Planted, opened_against, rewrite
from tests.finetune.conftest import curate
from tests.workflows.retraining.trainings import train
from workflows.retraining import comparison, run_files
from workflows.retraining.record import Record

JUDGED = results.__wrapped__()
VAL = [f"val-{i:03d}" for i in range(40)]


@pytest.fixture
def runs(tmp_path) -> Planted:
    found = Planted(tmp_path, JUDGED)
    found.curate("data")
    found.curate("new")
    return found


@pytest.mark.parametrize("measured", [SMALLEST_JUDGED, SMALLEST_JUDGED - 1])
def test_too_few_pictures_in_common_are_said(runs, measured):
    """By the same pictures that the evaluation then finds."""
    old = runs.run("old", keys={"val": VAL[:measured]})
    said = comparison.examine_pictures(old, runs.root / "new")
    assert opened_against(runs).pictures["val"].judged == (not said)
    assert bool(said) == (measured < SMALLEST_JUDGED)
    if said:
        assert f"groups in common are {measured} in val and 0 in test" in said
        assert "type the same with compare_with=base" in said


def test_what_could_not_be_compared_at_all_is_refused_before_training(runs):
    old = runs.run("old", keys={"val": ["other-000"]})
    with pytest.raises(UserError, match="no held-out picture in common"):
        comparison.examine_pictures(old, runs.root / "new")


@pytest.fixture
def of_two(runs):
    """A run of two data sets that is not trained yet: what it holds out is in the second."""
    for name, prefix in (("own", "o-"), ("photos", "")):
        sides = {"train": 6, "val": 40 if name == "photos" else 12}
        seed = 0 if name == "photos" else 100
        curate(runs.root / f"new-0001-{name}" / "curate", sides, 100, prefix, seed)
    run_dir = runs.root / "new-0001"
    Record("new", 1, datasets={"own": 1.0, "photos": 0.5}).save(run_dir)
    return run_dir


@pytest.mark.parametrize("measured", [SMALLEST_JUDGED, SMALLEST_JUDGED - 1])
def test_of_several_data_sets_the_held_out_pictures_of_all_count(runs, of_two, measured):
    """As they do once the training has joined them."""
    old = runs.run("old", keys={"val": VAL[:measured]})
    said = comparison.examine_pictures(old, of_two)
    assert bool(said) == (measured < SMALLEST_JUDGED)
    assert not (of_two / "joined").exists()
    before = against.pictures_of_both(open_judged(old), of_two, run_files.curate_dirs(of_two))
    train(of_two, runs=run_files.weights(of_two))
    after = against.pictures_of_both(open_judged(old), of_two)
    assert before == after
    assert len(after["val"].keys) == measured


def test_a_picture_that_another_data_set_trains_on_is_not_compared(runs, of_two):
    old = runs.run("old")
    found = against.pictures_of_both(open_judged(old), of_two, run_files.curate_dirs(of_two))
    assert not found["val"].left_out
    own = of_two.with_name("new-0001-own") / "curate"
    rewrite(own, "train", lambda rows: rows.assign(sha256=[f"{6:064x}", *rows["sha256"][1:]]))
    found = against.pictures_of_both(open_judged(old), of_two, run_files.curate_dirs(of_two))
    assert found["val"].left_out == {TRAINED_ON: 1}


def test_a_retraining_asks_after_curation_and_before_training(team, monkeypatch, capsys):
    asked = []

    def examine(promoted, run_dir):
        asked.append((promoted.name, run_dir.name, [*team.commands.ran]))
        return "warning: few"

    monkeypatch.setattr(comparison, "examine_pictures", examine)
    team.retrain()
    assert asked == []  # nothing is promoted yet
    team.add("e")
    team.retrain()
    ((promoted, run, ran),) = asked
    assert (promoted, run) == ("mine-0001", "mine-0002")
    assert ran[-2:] == ["curate mine-0002", "diff mine-0002"]
    assert "warning: few" in capsys.readouterr().out
