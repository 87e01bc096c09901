"""Runs that are no measure of each other are refused, with what to type; the rest share the right pictures."""

from __future__ import annotations

import pytest

from curate.run import checksums
from curate.run.schema import UserError
from evaluate.comparison import refuse
from evaluate.judged_runs.comparable import _joined, shared
from evaluate.judged_runs.judged import find, open_judged
from tests.evaluate.planted import Planted, rewrite


@pytest.fixture
def runs(tmp_path, results) -> Planted:
    found = Planted(tmp_path, results)
    found.curate("data")
    return found


def opened(*folders):
    return [open_judged(folder) for folder in folders]


def test_runs_of_one_curation_share_what_both_measured(runs):
    keys = [f"val-{i:03d}" for i in range(40)]
    first = runs.run("a", keys={"val": keys[::-1]})
    other = runs.run("b", keys={"val": keys[:35]})
    found = refuse(opened(first, other))
    assert found["val"].keys == keys[:35][::-1]
    assert found["val"].left_out == {"not measured by all": 5}
    assert len(set(found["val"].groups)) == 35
    assert found["val"].captions[0] == "red bar"  # of val-034, the 41st picture
    assert found["test"].keys == []


def test_another_grid_is_refused_with_what_to_type(runs):
    first = runs.run("a")
    other = runs.run("b", settings={"grid": {"bins": 10, "seed": 4}})
    with pytest.raises(UserError) as refused:
        refuse(opened(first, other))
    said = str(refused.value)
    assert "grid.bins is 3 in a and 10 in b; grid.seed is 0 in a and 4 in b" in said
    assert f"python -m evaluate run.name=b run.root={runs.root} grid.bins=3 grid.seed=0" in said


def test_another_sampler_is_refused_with_what_to_type(runs):
    first = runs.run("a", settings={"sampler": {"name": "dpm_solver++"}})
    other = runs.run("b", settings={"sampler": {"steps": 50}, "samples": {"seed": 1}})
    with pytest.raises(UserError) as refused:
        refuse(opened(first, other))
    said = str(refused.value)
    assert "sampler.name is dpm_solver++ in a and ddim in b" in said
    assert "sampler.steps is 3 in a and 50 in b" in said
    assert "sampler.name=dpm_solver++ sampler.steps=3 samples.seed=0 and its other keys" in said


def test_more_pictures_or_another_batch_size_are_the_same_grid(runs):
    first = runs.run("a")
    other = runs.run("b", settings={"grid": {"items": 64, "batch_size": 1}, "samples": {"rows": 2}})
    refuse(opened(first, other))


def test_another_precision_is_refused_and_earlier_versions_had_fp32(runs):
    first, other = opened(runs.run("a"), runs.run("b"))
    assert (first.precision, other.precision) == ("no", "no")
    other.results.provenance["evaluate"]["precision"] = "no"
    refuse([first, other])
    other.results.provenance["evaluate"]["precision"] = "bf16"
    with pytest.raises(UserError, match="precision is no in a and bf16 in b") as refused:
        refuse([first, other])
    assert "precision=no and its other keys" in str(refused.value)


@pytest.mark.parametrize(
    ("name", "says"), [("latents", "another VAE or at another model.resolution"), ("noise", "noise levels")]
)  # fmt: skip
def test_losses_in_other_units_are_refused(runs, name, says):
    first, other = runs.run("a"), runs.run("b", origin={name: "x" * 64})
    with pytest.raises(UserError, match=says):
        refuse(opened(first, other))


def test_another_base_is_not_refused(runs):
    refuse(opened(runs.run("a"), runs.run("b", origin={"base": "x" * 64})))


def test_nothing_in_common_is_refused(runs):
    keys = [f"val-{i:03d}" for i in range(40)]
    first = runs.run("a", keys={"val": keys[:20]})
    other = runs.run("b", keys={"val": keys[20:]})
    with pytest.raises(UserError) as refused:
        refuse(opened(first, other))
    assert "no held-out picture in common (20 not measured by all)" in str(refused.value)
    assert "accelerate launch finetune/train.py data.run=data run.name=NEW" in str(refused.value)


def test_another_picture_or_caption_of_a_key_is_left_out(runs):
    second = runs.curate("second")

    def change(rows):
        rows.loc[rows["key"] == "val-000", "sha256"] = "f" * 64
        rows.loc[rows["key"].isin(["val-001", "val-002"]), "caption"] = "a new caption"
        return rows

    rewrite(second, "val", change)
    found = refuse(opened(runs.run("a"), runs.run("b", data="second")))["val"]
    assert found.keys == [f"val-{i:03d}" for i in range(3, 40)]
    assert found.left_out == {"another picture of that key": 1, "another caption": 2}


@pytest.mark.parametrize("column", ["key", "sha256", "duplicate_group"])
def test_a_run_that_was_trained_on_a_shared_picture_is_refused(runs, column):
    """The other curation has a held-out picture of the first among its training pictures."""
    second = runs.curate("second")
    held_out = {"key": "val-007", "sha256": f"{13:064x}", "duplicate_group": "group-13"}

    def change(rows):
        rows.loc[rows["key"] == "train-002", column] = held_out[column]
        return rows

    rewrite(second, "train", change)
    first, other = runs.run("a"), runs.run("b", data="second")
    for order in ((first, other), (other, first)):
        with pytest.raises(UserError) as refused:
            refuse(opened(*order))
        said = str(refused.value)
        assert f"{other} was trained on 1 of the 40 held-out pictures in common" in said
        assert (
            f"'val-007' equals its training picture {'val-007' if column == 'key' else 'train-002'!r}"
            in said
        )
        assert f"in {column} {held_out[column]}" in said
        assert "Train both on one curation" in said


def test_a_near_copy_that_only_one_curation_knows_is_refused(runs):
    """By the first curation val-003 and val-004 are near copies; the other was trained on the latter."""
    second = runs.curate("second")
    keys = [f"val-{i:03d}" for i in range(40)]

    def joined(rows):
        rows.loc[rows["key"].isin(["val-003", "val-004"]), "duplicate_group"] = "both"
        return rows

    def trains(rows):
        rows.loc[rows["key"] == "train-000", ["sha256", "duplicate_group"]] = f"{10:064x}", "alone"
        return rows

    rewrite(runs.root / "data" / "curate", "val", joined)
    rewrite(second, "train", trains)
    rewrite(second, "val", lambda rows: rows[rows["key"] != "val-004"])
    without = [key for key in keys if key != "val-004"]
    first, other = runs.run("a"), runs.run("b", data="second", keys={"val": without})
    with pytest.raises(
        UserError, match=r"'val-003' equals its training picture 'train-000' in sha256"
    ):
        refuse(opened(first, other))


def test_a_curation_that_is_gone_or_another_is_refused(runs):
    first, other = runs.run("a"), runs.run("b", origin={"shards": "0" * 64})
    with pytest.raises(UserError, match="was curated again after"):
        refuse(opened(first, other))
    (runs.root / "data" / "curate" / "manifest.json").unlink()
    with pytest.raises(FileNotFoundError, match="holds no finished curation"):
        refuse(opened(first, runs.root / "a"))


def test_groups_of_any_curation_are_joined():
    keys = list("abcdef")
    first = ["1", "1", "2", "3", "4", "5"]
    other = ["x", "y", "y", "z", "z", "w"]
    assert _joined(keys, [first, other]) == ["a", "a", "a", "d", "d", "f"]
    assert _joined(keys, [first]) == ["a", "a", "c", "d", "e", "f"]


def test_groups_are_those_of_both_curations(runs):
    second = runs.curate("second")

    def joined(names):
        def change(rows):
            rows.loc[rows["key"].isin(names), "duplicate_group"] = "joined"
            return rows

        return change

    rewrite(runs.root / "data" / "curate", "val", joined(["val-000", "val-001"]))
    rewrite(second, "val", joined(["val-001", "val-002"]))
    found = shared(opened(runs.run("a"), runs.run("b", data="second")), "val")
    assert found.groups[:4] == ["val-000", "val-000", "val-000", "val-003"]


def test_an_evaluation_that_is_not_whole_is_refused(runs):
    folder = runs.run("a")
    (folder / "evaluate" / "losses.npz").write_bytes(b"x")
    with pytest.raises(UserError, match=r"losses\.npz is damaged.*type: python -m evaluate"):
        open_judged(folder)
    checksums.withdraw(folder / "evaluate")
    with pytest.raises(UserError, match=r"has not finished; type: python -m evaluate run\.name=a"):
        open_judged(folder)


def test_losses_of_an_earlier_version_are_refused(runs):
    import numpy as np

    folder = runs.run("a")
    arrays = dict(np.load(folder / "evaluate" / "losses.npz"))
    old = {name: array for name, array in arrays.items() if not name.startswith("origin/")}
    from finetune import npz

    npz.write(folder / "evaluate" / "losses.npz", old)
    checksums.write(folder / "evaluate")
    with pytest.raises(UserError, match="an earlier version wrote it; type: python -m evaluate"):
        open_judged(folder)


def test_a_run_is_found_by_name_or_folder(runs, monkeypatch):
    folder = runs.run("mine")
    assert find("mine", runs.root) == folder
    assert find(str(folder), runs.root / "elsewhere") == folder
    monkeypatch.chdir(folder)
    assert find(".", runs.root / "elsewhere") == folder
    with pytest.raises(
        UserError, match=r"gate.against=mime is no judged run; .* holds mine. Did you mean mine"
    ):
        find("mime", runs.root, "gate.against")
    (runs.root / "new/finetune/checkpoints/step-00000001").mkdir(parents=True)
    with pytest.raises(
        UserError, match=r"new is not judged yet; type first: python -m evaluate run.name=new"
    ):
        find("new", runs.root)
