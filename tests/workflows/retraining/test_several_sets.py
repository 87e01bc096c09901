"""Retrainings of two data sets that grow, each by itself, with fake commands."""

import json

import pandas as pd
import pytest

from curate.run.finished import refuse_finished
from curate.run.removals import Removals, read_removals, write_removals
from curate.run.schema import UserError
from tests.workflows.retraining.conftest import digest
from workflows.retraining import held_out, run_files, timeline, unchanged
from workflows.retraining.outcome import nothing_to_do
from workflows.retraining.record import Record
from workflows.retraining.series import all_of


@pytest.fixture
def both(team):
    team.two_sets()
    return team


def sides(team, run):
    """Of each picture of a curation."""
    rows = pd.read_parquet(team.root / run / "curate" / "ledger")
    return dict(zip(rows["key"], rows["split"], strict=True))


def test_each_is_curated_by_itself_and_one_training_stands_on_both(both):
    first = both.retrain()
    assert (first.outcome, first.run) == ("promoted", "mine-0001")
    assert both.commands.ran == [
        "curate mine-0001-own", "curate mine-0001-photos", "finetune mine-0001", "evaluate mine-0001",
    ]  # fmt: skip
    train, judge = both.commands.lines[2:]
    assert "data.runs={mine-0001-own: 1.0, mine-0001-photos: 0.3}" in train
    assert not [text for text in judge if "data.runs" in text]
    assert both.runs() == ["mine-0001", "mine-0001-own", "mine-0001-photos"]
    assert not (both.root / "mine-0001" / "curate").exists()
    assert list(sides(both, "mine-0001-photos")) == [*"klmn"]
    record = Record.load(both.root / "mine-0001")
    assert record.datasets == {"own": 1.0, "photos": 0.3}
    assert {*record.steps} == {"curate own", "curate photos", "finetune", "evaluate"}


def test_what_is_new_in_one_starts_a_retraining_and_is_said_of_that_one(both):
    both.retrain()
    assert both.retrain().outcome == "nothing_to_do"
    both.add("o", to="photos")
    folder = both.folder("photos")
    said = tuple(f"photos: {folder}/o.{end}: new" for end in ("png", "txt"))
    assert both.retrain(why=True).changes == said
    second = both.retrain()
    assert (second.outcome, second.run, second.changes) == ("promoted", "mine-0002", said)
    assert both.commands.ran[4:] == [
        "curate mine-0002-own", "curate mine-0002-photos", "diff mine-0002-own", "diff mine-0002-photos",
        "finetune mine-0002", "evaluate mine-0002",
    ]  # fmt: skip
    diff = both.commands.lines[7]
    assert diff[-2:] == [str(both.root / f"mine-000{n}-photos") for n in (1, 2)]
    both.add(*(f"new{n}" for n in range(9)), to="photos")
    (many,) = both.retrain(why=True).changes
    assert many.startswith("photos: 18 files (")


def test_settings_are_said_of_their_data_set_and_so_are_weights(both):
    both.retrain()
    both.weights = {"own": 1.0, "photos": 0.5}
    assert both.retrain(why=True).changes == ("datasets.photos.weight: 0.3, now 0.5",)
    both.weights = {"own": 1.0}
    gone, files = both.retrain(why=True).changes
    assert gone == "the data set photos: listed, now gone"
    assert files.startswith("photos: 8 files")


def test_from_one_to_two(team):
    team.add("z")
    team.retrain()
    team.two_sets()
    said = team.retrain(why=True).changes
    assert said[:2] == ("the data set own: listed", "the data set photos: listed")
    assert not [text for text in said if text.startswith(("curate", "datasets."))]
    second = team.retrain()
    assert second.outcome == "promoted"
    assert not [text for text in team.commands.ran if text.startswith("diff")]
    team.weights = {}
    assert team.retrain().run == "mine-0003"
    assert team.commands.ran[-3:] == [f"{n} mine-0003" for n in ("curate", "finetune", "evaluate")]


def interrupted_before(team, run):
    """Retrain until the curation of a run begins."""

    def stop():
        if team.commands.ran[-1] == f"curate {run}":
            raise KeyboardInterrupt("SIGTERM")

    team.commands.before["curate"] = stop
    with pytest.raises(KeyboardInterrupt):
        team.retrain()
    team.commands.before.clear()
    team.commands.ran.clear()


def test_it_goes_on_between_the_curations_with_what_is_there_then(both):
    both.retrain()
    both.add("e", to="own")
    interrupted_before(both, "mine-0002-photos")
    both.add("o", to="photos")
    found = both.retrain()
    assert both.commands.ran[0] == "curate mine-0002-photos"
    assert "o" in sides(both, "mine-0002-photos")
    assert found.changes == tuple(
        f"{name}: {both.folder(name)}/{key}.{end}: new"
        for name, key in (("own", "e"), ("photos", "o"))
        for end in ("png", "txt")
    )
    assert both.retrain().outcome == "nothing_to_do"


def test_what_changes_after_its_curation_is_the_next_retrainings(both):
    both.retrain()
    both.add("e", to="own")
    interrupted_before(both, "mine-0002-photos")
    both.add("f", to="own")
    both.add("o", to="photos")
    both.retrain()
    assert "f" not in sides(both, "mine-0002-own")
    found = both.retrain()
    assert found.run == "mine-0003"
    assert found.changes == tuple(
        f"own: {both.folder('own')}/f.{end}: new" for end in ("png", "txt")
    )
    assert both.retrain().outcome == "nothing_to_do"


def test_what_started_it_is_undone_before_the_first_curation(both):
    both.retrain()
    both.add("e", to="own")
    interrupted_before(both, "mine-0002-own")
    for end in ("png", "txt"):
        (both.folder("own") / f"e.{end}").unlink()
    assert both.retrain().outcome == "nothing_to_do"
    assert both.events()[-1][:2] == ("abandoned", "mine-0002")


def test_a_picture_removed_from_any_stays_out_of_all(both):
    both.retrain()
    listed = Removals(keys=frozenset({"l"}), sha256=frozenset({digest("l")}))
    write_removals(both.root / "mine-0001-photos" / "curate", listed)
    (said,) = both.retrain(why=True).changes
    assert said.startswith("removed pictures: 2 listed")
    both.retrain()
    assert "l" not in sides(both, "mine-0002-photos")
    for name in ("own", "photos"):
        assert read_removals(both.root / f"mine-0002-{name}" / "curate").keys == {"l"}
    assert both.retrain().outcome == "nothing_to_do"


def remove(team, run, *keys):
    folder = team.root / run / "curate"
    write_removals(folder, Removals(keys=frozenset(keys)))


@pytest.mark.parametrize("at", ["own", pytest.param("photos", marks=pytest.mark.slow)])
def test_a_removal_during_a_curation_is_taken_over_by_all(both, at):
    """Also by one that was made before; nothing is compared or trained until then."""
    both.retrain()
    both.add("o", to="photos")
    both.commands.ran.clear()

    def meanwhile():
        if both.commands.ran[-1].endswith(at):
            both.commands.before.clear()
            remove(both, "mine-0001-own", "b")

    both.commands.before["curate"] = meanwhile
    found = both.retrain()
    curated = ["curate mine-0002-own", "curate mine-0002-photos"]
    assert both.commands.ran == [
        *curated[: 1 if at == "own" else 2], *curated, "diff mine-0002-own", "diff mine-0002-photos",
        "finetune mine-0002", "evaluate mine-0002",
    ]  # fmt: skip
    assert list(sides(both, "mine-0002-own")) == [*"acd"]
    assert "removed" not in found.sentence
    assert both.retrain().outcome == "nothing_to_do"


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ("bl", "2 were removed"),
        pytest.param("b", "1 was removed", marks=pytest.mark.slow),
        pytest.param("ak", "", marks=pytest.mark.slow),
    ],
)
def test_a_removal_during_the_training_is_said_of_all_data_sets_together(both, keys, says):
    """``a`` and ``k`` are held out."""
    both.retrain()
    both.add("o", to="photos")
    both.commands.before["finetune"] = lambda: remove(both, "mine-0001-photos", *keys)
    said = both.retrain().sentence
    assert says in said
    assert ("removed" in said) == bool(says)


def test_a_copy_is_held_out_of_all_whichever_holds_it_out(both):
    """xy of own is trained on until photos, curated after it, holds out its copy yx."""
    both.add("wxy", "xy", to="own")
    both.add("yx", to="photos")
    for name in "klmn":
        (both.folder("photos") / f"{name}.png").unlink()
    both.retrain()
    assert both.commands.ran[:3] == [
        "curate mine-0001-own", "curate mine-0001-photos", "curate mine-0001-own",
    ]  # fmt: skip
    assert sides(both, "mine-0001-photos") == {"yx": "val"}
    assert sides(both, "mine-0001-own")["xy"] == "val"
    table = pd.read_parquet(both.series.folder / held_out.TABLE)
    assert digest("xy") in set(table["sha256"])
    both.add("aa", to="photos")  # which takes the first place from yx
    both.retrain()
    assert sides(both, "mine-0002-photos") == {"aa": "val", "yx": "val"}
    assert both.commands.ran.count("curate mine-0002-own") == 1


def test_equal_keys_are_refused_before_training_and_may_be_mended(both):
    both.add("a", to="photos")
    with pytest.raises(UserError, match=r"own and photos have 1 equal keys, such as a, .* Rename"):
        both.retrain()
    assert not [text for text in both.commands.ran if text.startswith("finetune")]
    for end in ("png", "txt"):
        (both.folder("photos") / f"a.{end}").rename(both.folder("photos") / f"o.{end}")
    assert both.retrain().outcome == "promoted"
    assert list(sides(both, "mine-0001-photos")) == [*"klmno"]
    assert both.retrain().outcome == "nothing_to_do"


def test_the_curations_go_with_their_run(both):
    for name in "opqr":
        both.retrain(keep=1)
        both.add(name, to="photos")
    assert both.runs() == [
        f"mine-000{n}{end}" for n in (3, 4) for end in ("", "-own", "-photos")
    ]  # the promoted one and the one before
    assert held_out.settings(both.series)


def test_a_run_stays_while_another_training_stands_on_one_of_its_curations(both):
    both.retrain(keep=1)
    training = both.root / "by_hand" / "finetune"
    (training / "checkpoints" / "step-00000001").mkdir(parents=True)
    (training / "config.yaml").write_text("data: {run: mine-0001-photos}\n")
    for name in "opq":
        both.add(name, to="photos")
        both.retrain(keep=1)
    assert "mine-0001-photos" in both.runs()
    assert "mine-0001" in both.runs()
    assert "mine-0002" not in both.runs()


def test_a_folder_that_is_there_already_is_refused(both):
    (both.root / "mine-0001-photos").mkdir(parents=True)
    with pytest.raises(UserError, match="mine-0001-photos is there already"):
        both.retrain()
    assert both.commands.ran == []
    assert both.runs() == ["mine-0001-photos"]


def test_no_other_command_takes_a_curation_for_a_run_of_the_series(both):
    both.retrain()
    assert both.series.numbers() == [1]
    assert [each.run for each in timeline.of(both.series).retrainings] == ["mine-0001"]
    assert "when mine-0001 ended" in nothing_to_do(both.root, "mine").sentence
    assert unchanged._has_ended(both.root, "mine")
    assert all_of(both.root) == [both.series]
    with pytest.raises(UserError, match="mine-0001-photos is a finished retraining"):
        refuse_finished(both.root / "mine-0001-photos")
    refuse_finished(both.root / "mine-0001-drawings")
    (both.root / "mine-0001" / "retrain.json").write_text("{")
    with pytest.raises(UserError, match=r"retrain\.json is damaged"):
        refuse_finished(both.root / "mine-0001-photos")


def test_a_run_that_was_not_trained_yet_knows_its_curations(both):
    both.retrain(until="curate")
    folders = run_files.curate_dirs(both.root / "mine-0001")
    assert [folder.parent.name for folder in folders] == ["mine-0001-own", "mine-0001-photos"]
    assert run_files.weights(both.root / "mine-0001") == {
        "mine-0001-own": 1.0,
        "mine-0001-photos": 0.3,
    }


def test_the_record_of_one_data_set_is_as_it_was(team):
    team.retrain()
    assert "datasets" not in json.loads((team.root / "mine-0001" / "retrain.json").read_bytes())
