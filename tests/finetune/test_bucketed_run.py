"""Whole runs on pictures of several shapes: what is cached, trained, measured, resumed and refused."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from curate.pack.sample import read_shard
from curate.run.manifest import read_manifest
from curate.run.schema import UserError
from finetune.buckets import nearest
from finetune.cache import encode_shards, load_split
from finetune.cache.framing import Framing
from finetune.checkpoint import list_checkpoints
from finetune.data import Batches
from finetune.heldout import HeldoutGrid, grid_losses, items_of
from finetune.latents import Mixed
from finetune.models import load_model
from finetune.opened_run import load_run
from tests.finetune import conftest
from tests.finetune.conftest import command, digests, losses, picture, start
from tests.finetune.models.conftest import xl_dir

__all__ = ["xl_dir"]

ROOT = Path(__file__).resolve().parents[2]
SHAPES = [(60, 20), (20, 80), (40, 40), (64, 48)]  # width and height
BUCKETS = {"buckets.enabled": True, "buckets.step": 8}
VIEWS = {"data.flip": True, "data.crops": 2, "cache.latents": "posterior"}
# At 16 px: 24x8, 8x32, 16x16, 16x16


class Killed(BaseException):
    """Stands in for the power cut: no ``except Exception`` sees it."""


@pytest.fixture(autouse=True)
def _shapes(monkeypatch):
    monkeypatch.setattr(
        conftest, "picture", lambda seed: picture(seed, 80).resize(SHAPES[seed % 4])
    )


def opened(config, side="train", buckets=True):
    model = load_model(config.model)
    shards = read_manifest(config.curate_dir).shards_of(side)
    framing = Framing.of(config, side) if buckets else Framing(config.curate_dir)
    cache = Path(config.run.root, ".cache")
    encode_shards(model, config.curate_dir, shards, cache, framing, progress=False)
    return model, load_split(model, shards, cache, framing)


@torch.no_grad()
def test_cached_latents_are_the_vaes_of_the_crop_by_hand(make_config):
    config = make_config(**BUCKETS)
    model, split = opened(config)
    pictures = {
        sample.key: sample.image
        for info in read_manifest(config.curate_dir).shards_of("train")
        for sample in read_shard(config.curate_dir / info.path)
    }
    seen = set()
    buckets = config.buckets.sides(16)
    for place, key in enumerate(split.keys):
        with Image.open(io.BytesIO(pictures[key])) as image:
            [number] = nearest(np.array(image.size)[:, None], buckets)
            height, width = buckets[number]
            scale = max(height / image.height, width / image.width)
            across, down = image.width - width / scale, image.height - height / scale
            box = (across / 2, down / 2, image.width - across / 2, image.height - down / 2)
            cut = image.resize((width, height), Image.Resampling.BICUBIC, box=box)
        pixels = torch.from_numpy(np.array(cut)).permute(2, 0, 1)[None] / 127.5 - 1
        alone = model.vae.encode(pixels.float()).latent_dist.mean * 1.5
        found = split.latents_of(torch.tensor([place]))
        assert found.shape == (1, 4, height // 4, width // 4)
        torch.testing.assert_close(found, alone, atol=1e-5, rtol=1e-5)
        seen.add((width, height))
    assert seen == {(24, 8), (8, 32), (16, 16)}
    assert isinstance(split.latents_of(torch.arange(len(split))), Mixed)


def test_squares_of_a_bucketed_run_are_those_of_one_without(make_config):
    """To the bit, and in one place of the cache."""
    config = make_config(**BUCKETS)
    _, split = opened(config)
    before = len(list(Path(config.run.root, ".cache", "latents").iterdir()))
    _, squares = opened(make_config(), buckets=False)
    assert len(list(Path(config.run.root, ".cache", "latents").iterdir())) == before
    assert squares.keys == split.keys
    same = [n for n in range(len(split)) if split.shape_of(n)[1:] == (4, 4)]
    assert len(same) == 6
    for place in same:
        at = torch.tensor([place])
        assert torch.equal(split.latents_of(at), squares.latents_of(at))


@torch.no_grad()
def test_held_out_losses_of_mixed_shapes_are_those_of_each_alone(make_config):
    config = make_config(val=9, **BUCKETS)
    model, split = opened(config, "val")
    items = items_of(split, 9, lambda keys: list(keys))
    assert isinstance(items.latents, Mixed)
    grid = HeldoutGrid(bins=3, draws=2)
    whole = grid_losses(model, model.unet, items, grid, batch_size=7)
    for place, key in enumerate(items.keys):
        [latent] = split.latents_of(torch.tensor([split.keys.index(key)]))
        noise, t = grid.noise(key, 1, 1, latent.shape), grid.timesteps(1000)[1, 1]
        alpha, sigma = model.schedule.alphas[t], model.schedule.sigmas[t]
        hidden = items.conditioning["hidden"][[place]]
        predicted = model.unet((alpha * latent + sigma * noise)[None], t, hidden).sample[0]
        expected = (predicted - (alpha * noise - sigma * latent)).square().mean().item()
        assert whole[place, 1, 1] == pytest.approx(expected, rel=1e-4)
    parts = [grid_losses(model, model.unet, items.take(slice(n, None, 2)), grid, 4) for n in (0, 1)]
    for n, part in enumerate(parts):
        np.testing.assert_allclose(part, whole[n::2], rtol=1e-4)


def test_a_run_in_buckets_says_its_buckets_and_is_judged_by_the_same_losses(
    make_config, run_training, capsys
):
    config = make_config(train=16, **BUCKETS, **{"doctor.base": "warn", "samples.captions": 1})
    run_training(config)
    out = capsys.readouterr().out
    assert "buckets 16x16 50.0%, " in out
    assert "8x32 25.0%" in out
    assert "24x8 25.0%; 3 in all" in out
    # 60x20 and 20x80 have the shape of their bucket, 40x40 too, and 64x48 loses a quarter
    assert "crop    6.2% of a picture is cropped away, in the mean; 0.0% of the 16 pictures" in out
    assert "are enlarged to their bucket" in out
    assert "pictures back at" in out
    run = load_run(config.run.folder)
    grid = HeldoutGrid(config.heldout.bins, config.heldout.draws, config.heldout.seed)
    with np.load(config.folder / "heldout.npz") as curve:
        items = run.items("val", config.heldout.items)
        assert items.keys == curve["val_keys"].tolist()
        for at, stored in enumerate([None, *run.checkpoints()]):
            again = grid_losses(run.model(), run.unet_at(stored), items, grid, batch_size=5)
            np.testing.assert_allclose(again, curve["val"][at], rtol=1e-5)
    squares = run.encoded("train", squares=True)
    assert {squares.shape_of(n) for n in range(16)} == {(4, 4, 4)}
    with pytest.raises(UserError, match=r"was started with buckets\.enabled=True, not False"):
        run_training(make_config())


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize(("cut", "views"), [(9, {}), (17, VIEWS)])
def test_a_run_in_buckets_that_is_cut_resumes_to_the_same_bytes(
    make_config, run_training, monkeypatch, tmp_path, cut, views
):
    config = make_config(**BUCKETS, **views)
    run_training(config)
    whole = losses(config), digests(config)
    config.folder.rename(tmp_path / "whole")
    calls, real = 0, os.fsync

    def dying(descriptor: int) -> None:
        nonlocal calls
        calls += 1
        if calls == cut:
            raise Killed
        real(descriptor)

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", dying)
        with pytest.raises(Killed):
            run_training(config)
    run_training(config)
    assert (losses(config), digests(config)) == whole


@pytest.mark.slow
def test_two_processes_train_in_buckets_what_one_does(make_config, run_training, tmp_path):
    """Same batches, half of each on each rank, in two micro-batches here and one there."""
    one = make_config("one", **BUCKETS, **VIEWS, **{"optim.gradient_accumulation": 2})
    two = make_config("two", **BUCKETS, **VIEWS)
    run_training(one)
    typed = [f"{key}={value}" for key, value in VIEWS.items()]
    launch = ["-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", "29581"]
    process = start([*launch, str(ROOT / "finetune" / "train.py"), *command(two), *typed], tmp_path)
    output = process.communicate(timeout=280)[0]
    assert process.returncode == 0, output
    for ours, theirs in zip(losses(one), losses(two), strict=True):
        assert theirs == pytest.approx(ours, rel=1e-4)
    last = [list_checkpoints(config.folder)[-1].weights() for config in (one, two)]
    for name, weight in last[0].items():
        torch.testing.assert_close(last[1][name], weight, atol=2e-5, rtol=1e-3)


def test_two_curations_in_buckets(make_config, run_training, capsys):
    config = make_config("joint", **BUCKETS)
    root = Path(config.run.root)
    conftest.curate(root / "a" / "curate", {"train": 8, "val": 6}, prefix="a-")
    conftest.curate(root / "b" / "curate", {"train": 8, "val": 6}, prefix="b-", seed=50)
    config.data.runs = {"a": 1.0, "b": 0.5}
    run_training(config)
    out = capsys.readouterr().out
    assert "samples of a 66.7 % (8 pictures × 1), b 33.3 % (8 pictures × 0.5)" in out
    assert "buckets 16x16" in out


@pytest.mark.parametrize(
    ("reaction", "says"), [("refuse", None), ("warn", "warning"), ("allow", "")]
)
def test_no_picture_is_enlarged_silently(make_config, run_training, capsys, reaction, says):
    config = make_config(**BUCKETS, **{"buckets.enlarge": reaction, "heldout.items": 0})
    config.model.resolution = 64
    config.train.samples = 4
    text = r"12 of 12 pictures \(100.0%\) have fewer pixels than their bucket and are enlarged, such as train-"
    if says is None:
        with pytest.raises(UserError, match=text + r".*buckets\.enlarge=warn"):
            run_training(config)
        assert not (config.run.folder / "finetune" / "checkpoints").exists()
        return
    run_training(config)
    out = capsys.readouterr().out
    assert ("warning: 12 of 12 pictures" in out) == bool(says)
    assert "100.0% of the 12 pictures are enlarged to their bucket" in out


def test_a_table_without_sizes_is_named(make_config, run_training):
    import pandas as pd

    config = make_config(**BUCKETS)
    [path, *_] = sorted((config.curate_dir / "shards" / "train").glob("*.parquet"))
    pd.read_parquet(path).drop(columns="height").to_parquet(path)
    with pytest.raises(
        UserError, match=r"does not know the pictures' height, .* type python -m curate"
    ):
        run_training(config)


def test_sdxl_is_given_the_size_the_corner_and_the_bucket(make_config, run_training, xl_dir):
    """As diffusers' pipeline takes them: the target is what the U-Net is asked to draw."""
    config = make_config(**BUCKETS)
    config.model.path, config.model.resolution = str(xl_dir), 32
    _, split = opened(config)
    batches = Batches(split, batch_size=1, caption_dropout=0, timesteps=10, seed=0)
    found = set()
    for number in range(12):
        batch = batches(number)
        [ids] = batch.conditioning["time_ids"].int().tolist()
        assert tuple(batch.latents.shape[2:]) == (ids[4] // 4, ids[5] // 4)
        found.add(tuple(ids))
    assert found == {
        (20, 60, 0, 0, 16, 48),
        (80, 20, 0, 0, 64, 16),
        (40, 40, 0, 0, 32, 32),
        (48, 64, 3, 0, 24, 40),  # resized to 40x30
    }
    run_training(config)
