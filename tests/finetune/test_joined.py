"""Trainings on several curations: what they are made of, what is refused, and who has to know of them."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

import finetune.loop
from curate.pipeline.previous_run import trainings
from curate.run import joined as names
from curate.run.experiment import _in_hydra, _settings
from curate.run.folder import curate_dir_of
from curate.run.manifest import digest_now, read_manifest, write_manifest
from curate.run.overrides import prepare
from curate.run.schema import UserError, to_dataclass
from curate.verify import stage_problems
from finetune import joined, train, trained_on
from finetune.config import DataConfig, TrainConfig
from finetune.opened_run import load_run
from tests.finetune.conftest import curate, digests, losses

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def two(make_config, tmp_path):
    """A factory of trainings on the curations ``mine``, 12 pictures, and ``photos``, 20; 6 and 5 are held out."""
    curate(tmp_path / "mine" / "curate", {"train": 12, "val": 6})
    curate(
        tmp_path / "photos" / "curate", {"train": 20, "val": 5, "test": 3}, prefix="p-", seed=100
    )

    def make(name: str = "both", weights=None, **changes) -> TrainConfig:
        (tmp_path / name / "curate").mkdir(parents=True, exist_ok=True)  # not curated for it
        config = make_config(name, **{"train.samples": 48, **changes})
        (tmp_path / name / "curate").rmdir()
        config.data = DataConfig(runs=weights or {"mine": 1, "photos": 0.3})
        return config

    return make


def test_a_training_on_two_curations(two, run_training, monkeypatch, capsys, tmp_path):
    """Twelve of mine and 0.3 * 20 of photos for each of them: a third of the samples."""
    seen: Counter[str] = Counter()
    real = finetune.loop.update

    def update(run, batch):
        seen.update(batch.keys)
        return real(run, batch)

    monkeypatch.setattr(finetune.loop, "update", update)
    config = two(**{"train.samples": 36, "optim.batch_size": 6})
    run_training(config)
    photos = sum(count for key, count in seen.items() if key.startswith("p-"))
    assert (photos, sum(seen.values())) == (12, 36)
    assert {count for key, count in seen.items() if not key.startswith("p-")} == {2}
    said = capsys.readouterr().out
    assert "samples of mine 66.7 % (12 pictures × 1), photos 33.3 % (20 pictures × 0.3)" in said
    assert "near twins across the curations of data.runs were not looked for" in said

    place = config.run.folder / "joined"
    assert curate_dir_of(config.run.folder) == config.curate_dir == place
    manifest = read_manifest(place)
    assert {shard.path.split("/curate/")[0] for shard in manifest.shards} == {
        "../../mine",
        "../../photos",
    }
    assert manifest.totals["kept"] == 18 + 28
    assert names.option(place) == "'data.runs={mine: 1, photos: 0.3}'"
    assert not list(stage_problems(place))

    given = trained_on.read(config.folder)[0].to_pandas()
    assert Counter(given["run"]) == {"mine": 18, "photos": 28}
    assert set(given["run"][given["key"].str.startswith("p-")]) == {"photos"}

    run = load_run(config.run.folder)
    keys = run.items("val", 100).keys
    assert Counter(key.startswith("p-") for key in keys) == {False: 6, True: 5}
    assert len(run.items("test", 100).keys) == 3
    assert run.groups_of("val", ["p-val-000", "val-001"]) == ["group-120", "group-13"]


def test_the_order_of_typing_changes_nothing_and_a_weight_does(two, run_training):
    runs = [
        two("one", {"mine": 1, "photos": 0.5}),
        two("two", {"photos": 1, "mine": 2}),
        two("three", {"mine": 1, "photos": 0.6}),
    ]
    found = []
    for config in runs:
        run_training(config)
        found.append(digests(config)["checkpoints/step-00000012/weights.safetensors"])
    assert found[0] == found[1] != found[2]


@pytest.mark.parametrize(
    "cut", [pytest.param(5, marks=pytest.mark.slow), 14, pytest.param(22, marks=pytest.mark.slow)]
)
def test_a_run_cut_at_any_write_resumes_to_the_same_bytes(
    two, run_training, monkeypatch, tmp_path, cut
):
    class Killed(BaseException):
        pass

    config = two()
    run_training(config)
    whole = losses(config), digests(config)
    config.run.folder.rename(tmp_path / "whole")
    calls, real = 0, os.fsync

    def dying(descriptor: int) -> None:
        nonlocal calls
        calls += 1
        if calls == cut:
            raise Killed
        real(descriptor)

    monkeypatch.setattr(os, "fsync", dying)
    with pytest.raises(Killed):
        run_training(config)
    monkeypatch.setattr(os, "fsync", real)
    run_training(config)
    assert (losses(config), digests(config)) == whole


def test_other_weights_or_shards_are_another_training(two, run_training, tmp_path):
    config = two()
    run_training(config)
    config.train.samples = 96
    config.data.runs = {"mine": 1, "photos": 0.4}
    with pytest.raises(UserError, match=r"was started with data\.runs=.*0\.3.*, not .*0\.4"):
        run_training(config)
    config.data.runs = {"mine": 1, "photos": 0.3}
    curate(tmp_path / "photos" / "curate", {"train": 21, "val": 5}, prefix="p-", seed=100)
    with pytest.raises(
        UserError, match=r"other curated data .*'data\.runs=\{mine: 1, photos: 0\.3\}'"
    ):
        run_training(config)


# Refusals


@pytest.mark.parametrize(
    ("other", "says"),
    [
        ({"seed": 100}, r"mine and photos have 17 equal keys, such as train-000"),
        ({"prefix": "p-", "seed": 13}, r"of the val samples of mine are trained on in photos: (sha256|dup)"),
    ],
)  # fmt: skip
def test_what_curations_may_not_share(two, tmp_path, other, says):
    config = two()
    curate(tmp_path / "photos" / "curate", {"train": 20, "val": 5}, **other)
    with pytest.raises(UserError, match=says):
        joined.read(config)


def test_two_clips_are_not_mixed(two, tmp_path):
    config = two()
    for name, clip in (("mine", "ViT-B-32"), ("photos", "ViT-L-14")):
        path = tmp_path / name / "curate" / "config.yaml"
        path.write_text(f"clip:\n  name: {clip}\n  pretrained: openai\n")
    with pytest.raises(
        UserError, match=r"mine was scored with the CLIP ViT-B-32 openai, and photos"
    ):
        joined.read(config)


def test_what_is_typed_is_checked():
    with pytest.raises(UserError, match=r"data\.runs\.photos=0 is out of range"):
        DataConfig(runs={"mine": 1, "photos": 0})
    with pytest.raises(UserError, match=r"data\.run=a and data\.runs=\{b: 1\} are both given"):
        DataConfig("a", {"b": 1})
    with pytest.raises(UserError, match=r"data\.runs=a/b is no name"):
        DataConfig(runs={"a/b": 1})


@pytest.mark.parametrize(
    "typed",
    [
        ["data.runs={mine: 1, photos-0001: 0.3}"],
        ["data.runs={mine:1,photos-0001:0.3}"],
        ["data.runs.mine=1", "data.runs.photos-0001=0.3"],
    ],
)
def test_how_it_is_typed(typed):
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config = to_dataclass(compose("train", prepare(typed)), TrainConfig)
    assert config.data.runs == {"mine": 1.0, "photos-0001": 0.3}


def test_an_experiment_may_hold_them():
    settings = _settings("mine.yaml", {"data": {"runs": {"mine": 1, "photos-0001": 0.3}}})
    typed = _in_hydra("mine.yaml", settings)
    assert typed == ["++data.runs.mine=1", "++data.runs.photos-0001=0.3"]


def test_a_name_that_is_no_curated_run_and_a_training_without_a_name(two):
    config = two("both", {"mine": 1, "photo": 1})
    with pytest.raises(
        UserError, match=r"data\.runs=photo is no curated run; .*holds mine, photos"
    ):
        train.start(config)
    config.run.name = None
    with pytest.raises(
        UserError, match=r"needs a name for the training on it; type run\.name=mine-photo-2"
    ):
        train.start(config)


# Others who have to know


def test_a_curation_knows_the_trainings_that_join_it(
    two, run_training, tmp_path, monkeypatch, capsys
):
    config = two()
    run_training(config)
    for name in ("mine", "photos"):
        assert trainings(tmp_path / name) == [config.folder]
    assert trainings(tmp_path / "other") == []

    from curate import verify

    monkeypatch.setattr("sys.argv", ["verify", str(config.run.folder)])
    with pytest.raises(SystemExit) as ended:
        verify.main()
    said = capsys.readouterr().out
    assert ended.value.code == 0
    for name in ("mine", "photos"):
        assert f"curate    of this training is {tmp_path / name / 'curate'}" in said
    assert "joined" in said


def test_a_curation_that_changed_is_noticed(two, run_training, tmp_path):
    config = two()
    run_training(config)
    place = config.curate_dir
    manifest = read_manifest(place)
    assert digest_now(place, manifest) == manifest.digest()
    theirs = read_manifest(tmp_path / "photos" / "curate")
    curate(tmp_path / "photos" / "curate", {"train": 20, "val": 4}, prefix="p-", seed=100)
    assert digest_now(place, manifest) == "changed"
    assert trainings(tmp_path / "photos") == []
    write_manifest(tmp_path / "photos" / "curate", theirs)
    assert digest_now(place, manifest) == manifest.digest()
