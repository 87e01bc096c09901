"""What any run of a series held out is handed to all later ones."""

import pandas as pd

from tests.workflows.retraining.conftest import curation
from workflows.retraining import held_out


def keys(team):
    return pd.read_parquet(team.series.folder / held_out.TABLE)["key"].tolist()


def test_the_first_run_gets_none_and_each_later_one_all_before_it(team):
    assert held_out.settings(team.series) == []
    team.retrain()
    table = team.series.folder / held_out.TABLE
    assert held_out.settings(team.series) == [f"split.held_out={table}"]
    assert keys(team) == ["a"]  # every fourth
    (team.pictures / "a.png").unlink()
    team.retrain()
    assert f"split.held_out={table}" in team.commands.lines[3]
    assert not [word for word in team.commands.lines[0] if "held_out" in word]
    assert keys(team) == ["a", "b"]


def test_adding_again_changes_no_byte(team):
    team.retrain()
    table = team.series.folder / held_out.TABLE
    before = table.read_bytes()
    held_out.add(team.series, team.series.run_dir("mine-0001"))
    assert table.read_bytes() == before
    curation(team.series.run_dir("mine-0002") / "curate", ["z"])
    held_out.add(team.series, team.series.run_dir("mine-0002"))
    assert keys(team) == ["a", "z"]


def test_a_run_that_is_given_up_leaves_what_it_held_out(team):
    team.retrain(until="curate")
    team.lr = 2.0
    (team.pictures / "a.png").unlink()
    team.retrain()
    assert keys(team) == ["a", "b"]
