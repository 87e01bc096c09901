"""Whether a curated run can be compared with the promoted one, asked before it is trained."""

import pytest

from curate.decide.config import SMALLEST_JUDGED
from curate.run.schema import UserError
from tests.evaluate.conftest import results
from tests.evaluate.planted import Planted, opened_against
from workflows.retraining import comparison

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
