"""What was removed from any run of a series stays out of all later ones."""

import pytest

from curate.run.removals import Removals, identities, read_removals, write_removals
from curate.run.schema import UserError
from workflows.retraining import removals
from workflows.retraining.record import Record


def remove(team, run, **values):
    folder = team.series.run_dir(run) / "curate"
    folder.mkdir(parents=True, exist_ok=True)
    write_removals(folder, Removals(**{name: frozenset(found) for name, found in values.items()}))


def test_all_lists_count_together(team):
    assert removals.said(team.series) == {}
    remove(team, "mine-0001", keys={"a"}, urls={"https://x.org/1"})
    remove(team, "mine-0002", keys={"b"}, sha256={"0" * 64})
    remove(team, "other-0001", keys={"z"})
    found = removals.of_series(team.series)
    assert (found.keys, found.urls, found.sha256) == ({"a", "b"}, {"https://x.org/1"}, {"0" * 64})
    (said,) = removals.said(team.series).values()
    assert said.startswith("4 listed (digest ")
    remove(team, "mine-0003", keys={"a"})
    assert removals.said(team.series) == {removals.SETTING: said}
    remove(team, "mine-0003", keys={"c"})
    assert removals.said(team.series) != {removals.SETTING: said}


def test_a_run_takes_them_over_once(team):
    new = team.series.run_dir("mine-0002")
    removals.take_over(team.series, new)
    assert not new.exists()
    remove(team, "mine-0001", keys={"a"})
    removals.take_over(team.series, new)
    path = new / "curate" / "removed.json"
    assert read_removals(new / "curate").keys == {"a"}
    before = path.stat()
    removals.take_over(team.series, new)
    assert path.stat() == before
    assert removals.are_handed_on(team.series, "mine-0001", "mine-0002")
    remove(team, "mine-0001", keys={"a", "b"})
    assert not removals.are_handed_on(team.series, "mine-0001", "mine-0002")


def test_a_removal_starts_a_retraining_without_the_picture_and_then_no_more(team):
    team.retrain()
    remove(team, "mine-0001", keys={"a"})
    found = team.retrain()
    assert found.run == "mine-0002"
    assert len(found.changes) == 1
    assert found.changes[0].startswith("removed pictures: 1 listed")
    table = team.series.run_dir("mine-0002") / "curate" / "ledger"
    assert b"removed" not in (table / "part-00000.parquet").read_bytes()
    assert read_removals(team.series.run_dir("mine-0002") / "curate").keys == {"a"}
    for _ in range(2):
        assert team.retrain().outcome == "nothing_to_do"


def test_a_removal_during_the_curation_is_taken_over_before_anything_is_trained(team):
    team.retrain()
    team.add("e")
    team.commands.before["diff"] = lambda: pytest.fail("compared before it was curated again")

    def meanwhile():
        team.commands.before.clear()
        remove(team, "mine-0001", keys={"b"})

    team.commands.before["curate"] = meanwhile
    found = team.retrain()
    assert found.run == "mine-0002"
    ran = [word for word in team.commands.ran if word.endswith("mine-0002")]
    assert ran == [
        f"{step} mine-0002" for step in ("curate", "curate", "diff", "finetune", "evaluate")
    ]
    table = identities(team.series.run_dir("mine-0002") / "curate")
    assert sorted(table["key"]) == ["a", "c", "d", "e"]
    assert "removed" not in found.sentence
    assert team.retrain().outcome == "nothing_to_do"


@pytest.mark.parametrize(("key", "says"), [("b", True), ("a", False)])
def test_a_removal_during_the_training_is_said_with_the_promotion(team, key, says):
    """``b`` is trained on; ``a`` is held out."""
    team.retrain()
    team.add("e")
    team.commands.before["finetune"] = lambda: remove(team, "mine-0001", keys={key})
    found = team.retrain()
    assert (found.outcome, found.run) == ("promoted", "mine-0002")
    said = "Of the pictures that it was trained on, 1 was removed from other runs meanwhile"
    assert (said in found.sentence) == says
    assert (said in team.series.history()[-1].sentence) == says
    team.commands.before.clear()
    assert team.retrain().run == "mine-0003"


@pytest.mark.parametrize("stop", [3, 4])  # when it is to be curated again, and when that is noted
def test_a_run_that_is_killed_while_it_takes_a_removal_over_is_never_trained_on_it(
    team, monkeypatch, stop
):
    real, saved = Record.save, []

    def save(record, run_dir):
        saved.append(record.steps)
        if len(saved) == stop:
            raise KeyboardInterrupt
        real(record, run_dir)

    team.commands.before["curate"] = lambda: remove(team, "mine-0090", keys={"b"})
    with monkeypatch.context() as patch:
        patch.setattr(Record, "save", save)
        with pytest.raises(KeyboardInterrupt):
            team.retrain()
    assert [*saved[1]] == ["curate"]  # then without
    assert saved[-1] == {}
    team.commands.before.clear()
    run = team.retrain().run
    assert "b" not in set(identities(team.series.run_dir(run) / "curate")["key"])


def test_a_damaged_list_stops_all(team):
    team.retrain()
    remove(team, "mine-0001", keys={"a"})
    (team.series.run_dir("mine-0001") / "curate" / "removed.json").write_text("{")
    with pytest.raises(UserError, match=r"removed\.json is damaged; fetch it from a backup"):
        team.retrain()
