"""From a picture to every model that was given it, and back: against the sides that were planted."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from typing import Any

import pandas as pd
import pytest

from curate.remove import remove
from curate.run.files import read_json
from curate.run.schema import UserError
from finetune import trained_on
from tests.workflows.retraining import trainings
from tests.workflows.retraining.trainings import curate, sha256, train
from workflows import lineage as command
from workflows.retraining import ancestry, lineage, seen
from workflows.retraining.record import Record
from workflows.retraining.series import Series

FIRST = {f"p{n:02d}": "val" if n % 6 == 0 else "test" if n == 7 else "train" for n in range(20)}


def retrain(series: Series, number: int, sides: dict[str, str], start: str = "") -> Record:
    record = Record(
        series.name, number, start_from=start, outcome="promoted", export="finetune/export"
    )
    run_dir = series.run_dir(record.run)
    curate(run_dir, sides, dropped=("q01",))
    train(run_dir, str(run_dir.with_name(start)) if start else "")
    record.save(run_dir)
    lineage.write(series, record)
    return record


@pytest.fixture(scope="module")
def three_runs(tmp_path_factory):
    """The second begins with the first and has more pictures, the third begins with the base."""
    found = Series(tmp_path_factory.mktemp("lineage") / "runs", "mine")
    retrain(found, 1, FIRST)
    retrain(found, 2, FIRST | {"p20": "train", "p21": "val"}, start="mine-0001")
    third = {key: side for key, side in FIRST.items() if key != "p01"} | {"p20": "train"}
    retrain(found, 3, third)
    return found


@pytest.fixture
def series(three_runs, tmp_path):
    """A copy of them."""
    shutil.copytree(three_runs.root, tmp_path / "runs")
    return Series(tmp_path / "runs", "mine")


def uses_of(root, text):
    known = ancestry.models(root)
    (picture,) = ancestry.pictures_of(text, root, known)
    return {use.run: use for use in ancestry.uses(picture, known)}


def sides_of(root, text):
    return {run: use.side for run, use in uses_of(root, text).items()}


def test_each_picture_has_the_sides_that_were_planted(series):
    assert sides_of(series.root, "p02") == dict.fromkeys(
        ["mine-0001", "mine-0002", "mine-0003"], "train"
    )
    assert sides_of(series.root, sha256("p06")) == dict.fromkeys(
        ["mine-0001", "mine-0002", "mine-0003"], "val"
    )
    assert sides_of(series.root, "p20") == {"mine-0002": "train", "mine-0003": "train"}
    assert sides_of(series.root, "p01") == {"mine-0001": "train", "mine-0002": "train"}
    assert sides_of(series.root, "q01") == {}  # which a rule dropped


def test_there_and_back(series):
    """Every pair of a model leads to that model, and every model to exactly the pairs that were planted."""
    known = ancestry.models(series.root)
    planted = {"mine-0001": FIRST, "mine-0002": FIRST | {"p20": "train", "p21": "val"}}
    for run, sides in planted.items():
        pairs, notes = ancestry.pairs(known[run], known)
        own = pairs[pairs["model"] == run]
        expected = {(key, caption) for key in sides for caption in trainings.captions(key)}
        assert set(zip(own["key"], own["caption"], strict=True)) == expected
        assert len(own) == len(expected)
        assert dict(zip(own["key"], own["split"], strict=True)) == sides
        assert not notes
        for digest, side in set(zip(own["sha256"], own["split"], strict=True)):
            assert sides_of(series.root, digest)[run] == side


def test_a_removed_picture_still_leads_to_what_saw_it(series):
    before = uses_of(series.root, "p02")
    for run in ("mine-0001", "mine-0002", "mine-0003"):
        remove(series.run_dir(run) / "curate", "keys", {"p02"}, "0" * 64)
    assert uses_of(series.root, "p02") == before
    known = ancestry.models(series.root)
    (picture,) = ancestry.pictures_of("p02", series.root, known)
    assert picture.removed_from == ("mine-0001", "mine-0002", "mine-0003")
    pairs, _ = ancestry.pairs(known["mine-0001"], known)
    assert set(pairs.loc[pairs["removed"], "key"]) == {"p02"}
    assert set(pairs.loc[pairs["removed"], "caption"]) == {"a p02", "the p02"}


def test_a_removal_from_one_run_is_said_of_the_models_of_all(series):
    remove(series.run_dir("mine-0003") / "curate", "keys", {"p02"}, "0" * 64)
    known = ancestry.models(series.root)
    (picture,) = ancestry.pictures_of("p02", series.root, known)
    assert picture.removed_from == ("mine-0003",)
    pairs, _ = ancestry.pairs(known["mine-0001"], known)
    assert set(pairs.loc[pairs["removed"], "key"]) == {"p02"}


def test_a_deleted_run_is_still_known(series):
    before = sides_of(series.root, "p01"), sides_of(series.root, "p12")
    digests = ancestry.models(series.root)["mine-0001"].exports
    shutil.rmtree(series.run_dir("mine-0001"))
    assert (sides_of(series.root, "p01"), sides_of(series.root, "p12")) == before
    model = ancestry.models(series.root)["mine-0001"]
    assert not model.is_there
    assert model.exports == digests
    assert list(model.checkpoints) == ["step-00000002", "step-00000008"]


OWN = {f"p{n:02d}": "val" if n % 6 == 0 else "train" for n in range(12)}
PHOTOS = {f"r{n:02d}": "val" if n % 6 == 0 else "train" for n in range(12)}


def retrain_two(series: Series, number: int, photos: dict[str, str]) -> Record:
    """On two data sets, each curated beside the run."""
    weights = {"own": 1.0, "photos": 0.3}
    record = Record(
        series.name, number, outcome="promoted", export="finetune/export", datasets=weights
    )
    for each, sides in zip(record.curations(series.root), (OWN, photos), strict=True):
        curate(each.run_dir, sides, dropped=("q01",) if each.dataset == "own" else ())
    runs = {f"{record.run}-{name}": weight for name, weight in weights.items()}
    train(series.run_dir(record.run), runs=runs)
    record.save(series.run_dir(record.run))
    lineage.write(series, record)
    return record


def test_of_several_data_sets_each_picture_leads_to_its_curation_and_back(tmp_path):
    found = Series(tmp_path / "runs", "mine")
    for number, photos in ((1, PHOTOS), (2, PHOTOS | {"r20": "train"})):
        record = retrain_two(found, number, photos)
    data = read_json(found.run_dir(record.run) / "lineage.json")["data"]
    assert {name: each["weight"] for name, each in data.items()} == {
        "mine-0002-own": 1.0, "mine-0002-photos": 0.3,
    }  # fmt: skip
    assert [each["funnel"]["samples"]["train"] for each in data.values()] == [10, 11]
    assert sides_of(found.root, "r20") == {"mine-0002": "train"}
    assert sides_of(found.root, "p06") == {"mine-0001": "val", "mine-0002": "val"}
    assert uses_of(found.root, "r01")["mine-0001"].shard.startswith(
        "mine-0001-photos/curate/shards/"
    )
    known = ancestry.models(found.root)
    assert [*known] == ["mine-0001", "mine-0002"]
    pairs, notes = ancestry.pairs(known["mine-0001"], known)
    assert notes == []
    shards = found.root / pairs["run"].iloc[0] / "curate" / pairs["shard"].iloc[0]
    assert shards.is_file()
    planted = OWN | PHOTOS
    assert dict(zip(pairs["key"], pairs["split"], strict=True)) == planted
    assert len(pairs) == sum(len(trainings.captions(key)) for key in planted)
    assert not pairs["caption"].isna().any()

    remove(found.root / "mine-0002-photos" / "curate", "keys", {"r01"}, "0" * 64)
    (picture,) = ancestry.pictures_of("r01", found.root, known)
    assert picture.removed_from == ("mine-0002-photos",)
    before = sides_of(found.root, "r02")
    for end in ("", "-own", "-photos"):
        shutil.rmtree(found.root / f"mine-0001{end}")
    assert sides_of(found.root, "r02") == before == {"mine-0001": "train", "mine-0002": "train"}


def test_what_an_earlier_model_learned_is_in_the_later_one(series):
    """p30 was trained on by a model of no series, with which the third model of a chain began."""
    root = series.root
    curate(root / "other", {"p30": "train", "p31": "val", "p05": "train"})
    train(root / "other")
    curate(root / "next", {"p31": "train", "p30": "val"})
    train(root / "next", start=str(root / "other" / "finetune" / "export"))
    curate(root / "last", {"p40": "train"})
    train(root / "last", start="next")
    found = uses_of(root, "p30")
    assert {run: (use.side, use.through) for run, use in found.items()} == {
        "other": ("train", ()),
        "next": ("val", ("other",)),
        "last": ("", ("other",)),
    }
    assert found["next"].contradicts
    assert found["next"].checkpoints == ("step-00000002", "step-00000008")
    assert not found["last"].contradicts
    assert found["last"].exports == ("finetune/export",)
    known = ancestry.models(root)
    assert ancestry.parents(known["last"], known) == ["next", "other"]
    pairs, _ = ancestry.pairs(known["last"], known)
    assert set(zip(pairs["key"], pairs["model"], strict=True)) == {
        ("p40", "last"),
        ("p31", "next"),  # which held p30 out
        ("p30", "other"),  # which held p31 out
        ("p05", "other"),
    }


def test_what_a_model_began_with_is_known_by_its_bytes(series):
    """The folder that was typed is gone; that of other weights is of no training here."""
    root = series.root
    curate(root / "next", {"p31": "train"})
    weights = hashlib.sha256(b"mine-0001 weights").hexdigest()
    train(root / "next", start="/gone/finetune/export", init=weights)
    train(root / "other", start="/gone/finetune/export", init="c" * 64, data_run="next")
    shutil.rmtree(root / "mine-0001")
    known = ancestry.models(root)
    assert ancestry.parents(known["next"], known) == ["mine-0001"]
    assert uses_of(root, "p02")["next"].through == ("mine-0001",)
    _, notes = ancestry.pairs(known["other"], known)
    unknown = f"weights with the sha256 {'c' * 64}"
    assert notes == [f"it began with {unknown}, of which nothing is known here"]


def test_a_training_on_another_runs_curation(series):
    train(series.root / "slow", data_run="mine-0001")
    assert uses_of(series.root, "p02")["slow"].shard.startswith("mine-0001/curate/shards/train/")


def test_the_same_file_under_another_key_is_found(series):
    curate(series.root / "other", {"p02:copy": "train"})
    train(series.root / "other")
    found = uses_of(series.root, sha256("p02"))
    assert (found["other"].key, found["mine-0001"].key) == ("p02:copy", "p02")


def test_one_key_of_two_files_is_two_pictures(series, monkeypatch):
    monkeypatch.setattr(trainings, "sha256", lambda key: "f" * 64)
    curate(series.root / "other", {"p02": "train"})
    train(series.root / "other")
    known = ancestry.models(series.root)
    one, two = sorted(
        ancestry.pictures_of("p02", series.root, known),
        key=lambda found: found.sha256 != ("f" * 64,),
    )
    assert [use.run for use in ancestry.uses(one, known)] == ["other"]
    assert [use.run for use in ancestry.uses(two, known)] == ["mine-0001", "mine-0002", "mine-0003"]


def test_a_training_that_wrote_no_table(series):
    """Certain while the shards are what it was trained on, and not known after a removal."""
    root = series.root
    curate(root / "old", {"p50": "train", "p51": "val"})
    train(root / "old", own_table=False)
    assert sides_of(root, "p51") == {"old": "val"}
    remove(root / "old" / "curate", "keys", {"p51"}, "0" * 64)
    (use,) = uses_of(root, "p51").values()
    assert (use.side, use.saw_it) == (ancestry.UNKNOWN, True)
    assert "did not write down" in use.note


@pytest.mark.parametrize("replayed", [0, 1, 3])
def test_a_checkpoint_made_before_the_picture_was_drawn_did_not_see_it(series, replayed):
    """Counted by the batches that training takes, one after the other; of some samples the base drew the pictures."""
    from types import SimpleNamespace

    import numpy as np
    import torch

    from curate.pack.buckets import key_hashes
    from finetune.conditioning import Conditioning
    from finetune.data import Batches
    from finetune.doctor import ORDER
    from finetune.retention.replay import ReplayBatches

    keys = np.array([key for key, side in FIRST.items() if side == "train"])
    keys = keys[np.argsort(key_hashes(keys), kind="stable")].tolist()
    split = SimpleNamespace(
        keys=keys,
        views=1,
        has_deviations=False,
        latents_of=lambda rows: torch.zeros(len(rows), 1),
        conditioning_of=lambda *_: None,
    )
    split = type("Split", (), {**vars(split), "__len__": lambda self: len(keys)})()
    split.latents_of = lambda rows, *_: torch.zeros(len(rows), 1)
    split.conditioning_of = lambda rows, *_: Conditioning({"hidden": torch.zeros(len(rows), 1)})
    sizes: Any = {"batch_size": 4, "caption_dropout": 0, "timesteps": 10, "seed": 0}
    batches, run = Batches(split, **sizes), "mine-0001"
    if replayed:
        drawn = type("Pictures", (), {**vars(split), "keys": ["drawn"], "__len__": lambda _: 1})()
        drawn.latents_of = split.latents_of
        drawn.conditioning_of = split.conditioning_of
        batches, run = ReplayBatches(split, pictures=drawn, replayed=replayed, **sizes), "replayed"
        curate(series.run_dir(run), FIRST)
        settings = {"replay.share": replayed / 4, "optim.batch_size": 4, "order": ORDER}
        train(series.run_dir(run), settings=settings)
    first_two = {key for number in range(2) for key in batches(number).keys} - {"drawn"}
    assert len(first_two) == 2 * (4 - replayed)
    first_eight = {key for number in range(8) for key in batches(number).keys}
    for key in keys:
        seen_by = uses_of(series.root, key)[run].checkpoints
        steps = (("step-00000002", first_two), ("step-00000008", first_eight))
        assert seen_by == tuple(name for name, seen in steps if key in seen), key
    early = series.run_dir(run) / "finetune" / "export-step-00000002"
    early.mkdir()
    (early / "checkpoint.json").write_text('{"step": 2}')
    late = next(key for key in keys if key in first_eight - first_two)
    exports = {key: uses_of(series.root, key)[run].exports for key in (late, *first_two)}
    both = ("finetune/export", "finetune/export-step-00000002")
    assert exports == {late: both[:1]} | dict.fromkeys(first_two, both)


def test_no_weights_are_hashed_for_a_picture(series, monkeypatch):
    def refuse(*_):
        raise AssertionError

    monkeypatch.setattr(ancestry.run_files, "files_of", refuse)
    assert uses_of(series.root, "p02")["mine-0002"].exports == ("finetune/export",)


@pytest.mark.parametrize("listed", [False, True])
def test_exports_of_no_series_are_known_by_their_bytes(series, listed):
    from curate.run import checksums

    curate(series.root / "other", {"p30": "train"})
    finetune_dir = train(series.root / "other")
    if listed:
        checksums.write(finetune_dir)
    digest = hashlib.sha256(b"other weights").hexdigest()
    files = ancestry.models(series.root)["other"].exports["finetune/export"]
    assert files["pytorch_lora_weights.safetensors"] == digest
    assert set(files) == {"pytorch_lora_weights.safetensors", "checkpoint.json"}


# What is stored


def test_the_series_table_grows_by_what_is_new(series):
    spans, numbers = seen.read(series)
    assert numbers == [1, 2, 3]
    of = {row["key"]: (row["first"], row["last"]) for row in spans.to_dict("records")}
    assert len(spans) == len(of) == 22
    assert of["p02"] == (1, 3)
    assert of["p01"] == (1, 2)
    assert of["p20"] == (2, 3)
    assert of["p21"] == (2, 2)
    for number in numbers:
        own = pd.read_parquet(series.run_dir(f"mine-{number:04d}") / "finetune/trained_on.parquet")
        given = seen.of(series, number)
        assert set(zip(given["key"], given["split"], strict=True)) == set(
            zip(own["key"], own["split"], strict=True)
        )


def test_writing_a_run_again_changes_nothing(series):
    record = retrain(series, 4, FIRST | {"p50": "train"})
    before = (series.folder / seen.FILE).read_bytes()
    content = lineage.write(series, record).read_bytes()
    assert (series.folder / seen.FILE).read_bytes() == before
    lineage.write(series, Record.load(series.run_dir("mine-0001")))
    assert (series.folder / seen.FILE).read_bytes() == before
    assert lineage.write(series, record).read_bytes() == content


def test_the_last_run_written_again_replaces_what_was_there(series):
    import pyarrow.compute as pc

    record = retrain(series, 4, FIRST | {"p50": "train"})
    given, _ = trained_on.read(series.run_dir(record.run) / "finetune")
    seen.add(series, 4, given.filter(pc.field("key") != "p50"))
    spans, _ = seen.read(series)
    assert "p50" not in set(spans["key"])
    assert set(seen.of(series, 4)["key"]) == set(FIRST)


def test_a_picture_that_leaves_and_comes_back_has_two_spans(series):
    retrain(series, 4, FIRST)
    spans, _ = seen.read(series)
    rows = spans[spans["key"] == "p01"][["first", "last"]].to_numpy().tolist()
    assert sorted(rows) == [[1, 2], [4, 4]]


def test_the_file_says_what_the_model_was_made_from(series):
    content = read_json(series.run_dir("mine-0002") / "lineage.json", sealed=True)
    assert content == read_json(series.folder / "lineage" / "mine-0002.json", sealed=True)
    data = content["data"]["mine-0002"]
    manifest = read_json(series.run_dir("mine-0002") / "curate/manifest.json")
    assert [shard["sha256"] for shard in data["shards"]["files"]] == [
        s["sha256"] for s in manifest["shards"]
    ]
    assert data["shards"]["digest"] == content["training"]["identity"]["shards"]
    assert data["funnel"]["dropped"] == 1
    assert data["licences"] == {"CC BY 4.0": 11, "not stated": 11}
    sides = list((FIRST | {"p20": "train", "p21": "val"}).values())
    assert content["given"]["pictures"] == {
        side: sides.count(side) for side in ("train", "val", "test")
    }
    assert content["given"]["pairs"]["test"] == 1
    assert content["training"]["start_from"] == "mine-0001"
    weights = content["exports"]["finetune/export"]["pytorch_lora_weights.safetensors"]
    assert weights == hashlib.sha256(b"mine-0002 weights").hexdigest()


# The command


def run_command(monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", ["lineage", *map(str, arguments)])
    command.main()
    return capsys.readouterr().out


def test_a_model_by_its_name_its_folder_and_a_copy_of_its_export(
    series, monkeypatch, capsys, tmp_path
):
    root = ("--root", series.root)
    export = series.run_dir("mine-0002") / "finetune" / "export"
    copied = shutil.copytree(export, tmp_path / "models" / "in-use")
    shutil.copytree(
        series.run_dir("mine-0001"), series.root / "again"
    )  # which has other exports' bytes in it
    shutil.rmtree(series.root / "again" / "finetune" / "export")
    said = run_command(monkeypatch, capsys, "mine-0002", *root)
    assert said.splitlines()[0] == "model     mine-0002 (promoted)"
    assert (
        "data      trained on 16 pictures, 23 pairs; val 5 pictures, 9 pairs; test 1 pictures, 1 pairs"
        in said
    )
    assert "began     with mine-0001: trained on 15 pictures, 21 pairs" in said
    for what in (
        series.run_dir("mine-0002"),
        export,
        copied,
        copied / "pytorch_lora_weights.safetensors",
    ):
        assert run_command(monkeypatch, capsys, what, *root) == said
    shutil.rmtree(series.run_dir("mine-0002"))
    assert "mine-0002 (promoted, its folder was deleted)" in run_command(
        monkeypatch, capsys, copied, *root
    )


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_the_table_of_pairs(series, monkeypatch, capsys, tmp_path, suffix):
    path = tmp_path / f"pairs{suffix}"
    run_command(monkeypatch, capsys, "mine-0001", "--root", series.root, "--out", path)
    read = {
        ".csv": pd.read_csv,
        ".parquet": pd.read_parquet,
        ".jsonl": lambda p: pd.read_json(p, lines=True),
    }
    table = read[suffix](path)
    assert len(table) == sum(len(trainings.captions(key)) for key in FIRST)
    row = table[table["key"] == "p03"].iloc[0]
    assert (row["sha256"], row["caption"], row["source"]) == (sha256("p03"), "a p03", "drawn")
    assert (row["split"], row["run"], row["model"]) == ("train", "mine-0001", "mine-0001")
    assert row["shard"].startswith("shards/train/")


def test_a_picture_by_its_key_its_hash_and_its_file(series, monkeypatch, capsys, tmp_path):
    root = ("--root", series.root)
    file = tmp_path / "p02.png"
    file.write_bytes(trainings.picture("p02"))
    said = run_command(monkeypatch, capsys, "p02", *root)
    assert said == run_command(monkeypatch, capsys, sha256("p02"), *root)
    assert said == run_command(monkeypatch, capsys, file, *root)
    assert f"picture   p02, sha256 {sha256('p02')}" in said
    assert "model     mine-0001 (promoted): trained on it" in said
    assert "began with mine-0001, trained on it" in said
    assert "in all    3 of 3 trainings" in said
    found = json.loads(run_command(monkeypatch, capsys, "p06", *root, "--json"))
    (picture,) = found["pictures"]
    assert [(use["run"], use["side"], use["saw_it"]) for use in picture["uses"]] == [
        (f"mine-000{n}", "val", False) for n in (1, 2, 3)
    ]


def test_a_removed_picture_is_found_by_the_name_of_its_file(series, monkeypatch, capsys, tmp_path):
    """Its file is deleted, as one that had to be removed is; a name takes the place of the bytes."""
    root = ("--root", series.root)
    for run in ("mine-0001", "mine-0002", "mine-0003"):
        remove(series.run_dir(run) / "curate", "keys", {"p02"}, "0" * 64)
    expected = run_command(monkeypatch, capsys, "p02", *root)
    assert "removed   from mine-0001, mine-0002, mine-0003" in expected
    assert "mine-0002 (promoted): trained on it" in expected
    for name in ("p02.png", "cats/p02.png", tmp_path / "cats" / "p02.png"):
        assert run_command(monkeypatch, capsys, name, *root) == expected


def test_a_dropped_picture_says_that_no_model_saw_it_and_why(series, monkeypatch, capsys, tmp_path):
    root = ("--root", series.root)
    file = tmp_path / "cats" / "q01.png"
    expected = run_command(monkeypatch, capsys, "q01", *root)
    runs = "mine-0001, mine-0002, mine-0003"
    assert f"\ndropped   clip_similarity < 0.2 ({runs})\n" in expected
    assert expected.endswith("in all    no model saw it: none of 3 trainings was given it\n")
    assert run_command(monkeypatch, capsys, "q01.png", *root) == expected
    file.parent.mkdir()
    file.write_bytes(trainings.picture("q01"))
    assert run_command(monkeypatch, capsys, file, *root) == expected
    file.write_bytes(b"another picture by now")
    with pytest.raises(UserError, match="one of that name has the key q01, and its bytes"):
        run_command(monkeypatch, capsys, file, *root)
    (picture,) = json.loads(run_command(monkeypatch, capsys, "q01", *root, "--json"))["pictures"]
    assert picture["dropped"] == {"clip_similarity < 0.2": runs.split(", ")}


def test_what_one_curation_dropped_and_another_kept(series, monkeypatch, capsys):
    curate(series.root / "strict", {"p60": "train"}, dropped=("p02",))
    said = run_command(monkeypatch, capsys, "p02", "--root", series.root)
    assert "dropped   clip_similarity < 0.2 (strict)" in said
    assert "in all    3 of 3 trainings" in said


def test_a_picture_that_one_curation_never_read_is_no_other_one(series, monkeypatch, capsys):
    """A rule on captions dropped it before its bytes were read, and another run has the bytes."""
    folder = curate(series.root / "strict", {"p60": "train"}, dropped=("p02",))
    for part in (folder / "ledger").glob("*.parquet"):
        rows = pd.read_parquet(part)
        rows.loc[rows["key"] == "p02", "sha256"] = ""
        rows.to_parquet(part, index=False)
    said = run_command(monkeypatch, capsys, "p02", "--root", series.root)
    assert f"picture   p02, sha256 {sha256('p02')}" in said
    assert "dropped   clip_similarity < 0.2 (strict)" in said
    assert "different files" not in said


def test_how_to_write_the_pairs_is_said(series, monkeypatch, capsys):
    said = run_command(monkeypatch, capsys, "mine-0001", "--root", series.root)
    count = sum(len(trainings.captions(key)) for key in FIRST)
    assert f"pairs     {count}; to write them as a table, add --out pairs.csv" in said


def test_what_is_unknown_is_named(series, monkeypatch, capsys, tmp_path):
    root = ("--root", series.root)
    with pytest.raises(
        UserError, match=r"key, sha256 or file 'nobody'.* looked at 3 trainings and 3 ledgers"
    ):
        run_command(monkeypatch, capsys, "nobody", *root)
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "a.safetensors").write_bytes(b"x")
    with pytest.raises(UserError, match="holds the weights of no training below"):
        run_command(monkeypatch, capsys, tmp_path / "foreign", *root)
    with pytest.raises(UserError, match=r"a table is \.csv"):
        run_command(monkeypatch, capsys, "mine-0001", *root, "--out", "pairs.txt")
    shutil.copytree(series.run_dir("mine-0001"), series.root / "twin")
    shutil.copytree(series.run_dir("mine-0001") / "finetune/export", tmp_path / "copied")
    with pytest.raises(UserError, match="the exports of mine-0001, twin have alike; name one"):
        run_command(monkeypatch, capsys, tmp_path / "copied", *root)
    curate(series.root / "raw", {"p60": "train"})
    with pytest.raises(UserError, match="is a run that was not trained"):
        run_command(monkeypatch, capsys, "raw", *root)
    of_two = Record("two", 1, datasets={"own": 1.0, "photos": 1.0})
    of_two.save(series.run_dir("two-0001"))  # whose curations are in runs of their own
    with pytest.raises(UserError, match="two-0001 is a run that was not trained"):
        run_command(monkeypatch, capsys, "two-0001", *root)
    with pytest.raises(UserError, match="remove --out"):
        run_command(monkeypatch, capsys, "p02", *root, "--out", "pairs.csv")
