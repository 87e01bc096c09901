"""Caption gains of a trained run: those of the pictures asked for, by the loss of training, measured once."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from curate.run.manifest import read_manifest
from curate.run.reconsider import FILE, read_keys
from evaluate import results, run
from evaluate.measure import reconsider, training_gains, training_pictures
from evaluate.measure.grid import Grid, LossStore
from evaluate.measure.training_gains import LEVELS, LevelGrid
from evaluate.measure_config import GridConfig
from finetune.objective import denoising_loss
from finetune.opened_run import load_run
from tests.evaluate.test_run import config


def with_similarities(curate_dir: Path, values: dict[str, float]) -> None:
    for shard in read_manifest(curate_dir).shards_of("train"):
        path = (curate_dir / shard.path).with_suffix(".parquet")
        table = pq.read_table(path)
        found = [[values[key]] if key in values else None for key in table["key"].to_pylist()]
        pq.write_table(table.append_column("similarity", pa.array(found)), path)


def test_levels_are_those_of_the_diffusion_time():
    assert LevelGrid().timesteps(1000).tolist() == [[450], [650], [850]]


def test_gains_are_differences_of_the_training_loss(make_run, tmp_path):
    trained = load_run(make_run().run.folder)
    with_similarities(trained.curate_dir, {f"train-{i:03d}": 0.5 - i / 100 for i in range(40)})
    store = LossStore(tmp_path / "losses.npz")
    grid = Grid(trained, GridConfig(), store, torch.device("cpu"))
    row = trained.checkpoints()[-1]
    found = training_gains.measure(grid, row, 5)
    assert found.keys == [f"train-{i:03d}" for i in range(39, 34, -1)]
    assert found.similarity == pytest.approx([0.11, 0.12, 0.13, 0.14, 0.15])
    assert found.below == pytest.approx([0, 1 / 40, 2 / 40, 3 / 40, 4 / 40])
    assert found.gain == pytest.approx(by_hand(trained, row, found.keys), rel=1e-3, abs=1e-6)
    assert np.abs(found.gain).max() > 0
    assert len(found.reference) == len(found.reference_groups) == 40  # all that there are
    assert set(found.gain) <= set(found.reference)
    before = dict(store.arrays)
    grid.run.unet_at = None  # type: ignore[assignment]  # nothing is measured again
    again = training_gains.measure(grid, row, 5)
    assert again.gain.tolist() == found.gain.tolist()
    assert store.arrays.keys() == before.keys()
    store.prune()
    assert sum(name.startswith("reconsider_") for name in store.arrays) == 4


def by_hand(trained, row, keys):
    """One forward pass at a time, from the model's own parts."""
    model, unet = trained.model(), trained.unet_at(row)
    encoded = trained.encoded("train")
    losses = {}
    for key in encoded.keys:  # the unit is the mean of all that are measured
        index = torch.tensor([encoded.keys.index(key)])
        own = encoded.conditioning_of(index)
        for level, share in enumerate(LEVELS):
            for name, conditioning in (("own", own), ("none", encoded.empty)):
                noise = LevelGrid().noise(key, level, 0, encoded.shape_of(0))[None]
                with torch.no_grad():
                    losses[name, key, level] = denoising_loss(
                        partial(model.predict, unet), model.schedule, encoded.latents_of(index),
                        noise, torch.tensor([int(share * 1000)]), conditioning,
                    ).item()  # fmt: skip
    unit = [np.mean([losses["own", key, level] for key in encoded.keys]) for level in range(3)]
    return [
        np.mean(
            [(losses["none", k, i] - losses["own", k, i]) / unit[i] for i in range(len(LEVELS))]
        )
        for k in keys
    ]


def test_pictures_are_copied_from_the_shards_that_hold_them(make_run, tmp_path):
    curate_dir = load_run(make_run().run.folder).curate_dir
    shards = read_manifest(curate_dir).shards_of("train")
    folder = tmp_path / "shown"
    first = training_pictures.save(curate_dir, shards, ["train-000", "train-039"], folder)
    assert sorted(path.name for path in folder.iterdir()) == ["train-000.png", "train-039.png"]
    again = training_pictures.save(curate_dir, shards, ["train-039"], folder)
    assert [*folder.iterdir()] == [again["train-039"]]
    assert again["train-039"] == first["train-039"]
    assert training_pictures.save(curate_dir, shards, [], folder) == {}


@pytest.mark.slow
def test_an_evaluation_lists_pairs_that_remove_takes(make_run, clip_dir, monkeypatch):
    training = make_run()
    monkeypatch.setattr(reconsider, "unknown", lambda found: "")  # this model knows no captions
    asked = config(training, clip_dir)
    run.evaluate_run(asked, lambda _: None)
    folder = training.run.folder / "evaluate"
    found = results.load(folder / "report.json")
    listed = [doubt.key for doubt in found.reconsider]
    assert listed
    assert found.metrics["pairs_to_reconsider"].value == len(listed)
    assert read_keys(folder / FILE) == set(listed)
    assert all(doubt.caption_gain <= 0 for doubt in found.reconsider)
    shown = [doubt.file for doubt in found.reconsider if doubt.file]
    assert shown == [f"samples/reconsider/{key}.png" for key in listed[:8]]
    assert all((folder / file).is_file() for file in shown)
    html = (folder / "report.html").read_text()
    assert "Pairs to reconsider" in html
    assert f"--from {folder / FILE}" in html
    asked.reconsider.pictures = 0
    run.evaluate_run(asked, lambda _: None)
    assert not (folder / FILE).exists()
    assert not list((folder / "samples" / "reconsider").iterdir())
