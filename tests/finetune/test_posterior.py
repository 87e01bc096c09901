"""The VAE's posterior in the cache: its mean and deviation as diffusers has them, and a sample at each visit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from curate.run.manifest import read_manifest
from curate.run.schema import UserError
from finetune.cache import encode_shards, load_split
from finetune.cache.framing import Framing
from finetune.config.pictures import CacheConfig
from finetune.data import Batches
from finetune.models import load_model
from finetune.models.config import ModelConfig
from finetune.opened_run import load_run
from tests.finetune.conftest import losses
from tests.finetune.models.conftest import xl_dir

__all__ = ["xl_dir"]

POSTERIOR = {"cache.latents": "posterior"}


def opened(config, side="train", model=None):
    model = model or load_model(config.model)
    shards = read_manifest(config.curate_dir).shards_of(side)
    framing = Framing.of(config, side, all_views=True)
    cache = Path(config.run.root, ".cache")
    encode_shards(model, config.curate_dir, shards, cache, framing, progress=False)
    return load_split(model, shards, cache, framing)


def stored_bytes(config) -> int:
    return sum(p.stat().st_size for p in Path(config.run.root, ".cache", "latents").rglob("*.s*"))


@pytest.mark.parametrize("shifted", [False, True])
@torch.no_grad()
def test_mean_and_deviation_are_those_of_diffusers_posterior(pipeline_dir, xl_dir, shifted):
    """Of samples that diffusers draws, scaled as the models scale them: 4 standard errors of 4,000."""
    folder, side = (xl_dir, 32) if shifted else (pipeline_dir, 16)
    model = load_model(ModelConfig(path=str(folder), resolution=side))
    if shifted:
        shift = {"latents_mean": [0.1, 0.2, 0.3, 0.4], "latents_std": [2.0, 3.0, 4.0, 5.0]}
        model.vae.register_to_config(**shift)
    images = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0)) * 2 - 1
    mean, deviation = model.posterior_of(images)
    assert torch.equal(mean, model.encode_images(images))
    posterior = model.vae.encode(images).latent_dist
    generator = torch.Generator().manual_seed(1)
    samples = torch.cat([posterior.sample(generator) for _ in range(4000)]) * 1.5
    if shifted:
        centre, spread = (torch.tensor(each).view(1, 4, 1, 1) for each in shift.values())
        samples = (samples - centre * 1.5) / spread
    assert ((samples.mean(0) - mean[0]).abs() < 5 * deviation[0] / 4000**0.5).all()
    torch.testing.assert_close(samples.std(0), deviation[0], rtol=0.06, atol=0)


def test_every_visit_draws_a_sample_of_its_own(make_config):
    """Standardised by what is stored: mean 0 and variance 1 within 4 standard errors, and nothing drawn twice."""
    split = opened(make_config(**POSTERIOR))
    batches = Batches(split, batch_size=4, caption_dropout=0, timesteps=10, seed=0)
    found: dict[str, list[torch.Tensor]] = {}
    for number in range(600):
        batch = batches(number)
        at = torch.tensor([split.keys.index(key) for key in batch.keys])
        drawn = (batch.latents - split.latents_of(at)) / split.deviations_of(at)
        for key, each in zip(batch.keys, drawn, strict=True):
            found.setdefault(key, []).append(each)
    everything = torch.stack([each for mine in found.values() for each in mine])
    assert everything.shape == (2400, 4, 4, 4)
    assert everything.mean().abs() < 4 / everything.numel() ** 0.5
    assert everything.var() == pytest.approx(1, abs=4 * (2 / everything.numel()) ** 0.5)
    place = everything.reshape(2400, -1)
    assert place.mean(0).abs().max() < 5 / 2400**0.5
    assert (torch.corrcoef(place) - torch.eye(2400)).abs().max() < 0.8  # no two visits are alike
    again = Batches(split, batch_size=4, caption_dropout=0, timesteps=10, seed=0)(599)
    assert torch.equal(again.latents, batch.latents)  # whatever came before
    assert torch.equal(again.noise, batch.noise)
    halves = [
        Batches(split, batch_size=4, caption_dropout=0, timesteps=10, seed=0,
                rank=rank, world_size=2)(599) for rank in (0, 1)
    ]  # fmt: skip
    assert torch.equal(torch.stack([h.latents for h in halves], 1).flatten(0, 1), batch.latents)


def test_the_same_views_and_noise_are_drawn_with_the_mean_and_with_the_posterior(make_config):
    mean, posterior = opened(make_config()), opened(make_config(**POSTERIOR))
    plain, drawn = (
        Batches(split, batch_size=4, caption_dropout=0.5, timesteps=10, seed=3)(5)
        for split in (mean, posterior)
    )
    assert plain.keys == drawn.keys
    assert torch.equal(plain.noise, drawn.noise)
    assert torch.equal(plain.timesteps, drawn.timesteps)
    assert not torch.equal(plain.latents, drawn.latents)
    at = torch.arange(len(mean))
    assert torch.equal(mean.latents_of(at), posterior.latents_of(at))
    assert not mean.has_deviations


def test_fp16_halves_the_space_and_rounds(make_config):
    config = make_config()
    exact = opened(config)
    whole = stored_bytes(config)
    config.cache = CacheConfig(precision="fp16")
    rounded = opened(config)
    at = torch.arange(12)
    found = rounded.latents_of(at)
    assert found.dtype == torch.float32
    assert torch.equal(found, exact.latents_of(at).half().float())
    assert not torch.equal(found, exact.latents_of(at))
    header = 600  # of a pack, and 32 bytes of hash for each picture
    assert stored_bytes(config) - whole == pytest.approx(12 * 64 * 2, abs=header)
    assert [CacheConfig(a, b).size for a in ("mean", "posterior") for b in ("fp32", "fp16")] == [
        1, 0.5, 2, 1,
    ]  # fmt: skip
    with pytest.raises(UserError, match=r"cache\.precision=bf16 .* accepted: fp32, fp16"):
        CacheConfig(precision="bf16")


def test_a_latent_too_large_for_fp16_says_what_to_type(make_config):
    config = make_config(**{"cache.precision": "fp16"})
    model = load_model(config.model)
    model.vae.register_to_config(scaling_factor=1e7)
    with pytest.raises(RuntimeError, match=r"is not finite; .* type cache\.precision=fp32"):
        opened(config, model=model)


def test_held_out_losses_are_of_the_mean_and_evaluation_encodes_nothing_again(
    make_config, run_training, monkeypatch
):
    plain = make_config("plain")
    run_training(plain)
    config = make_config("drawn", **POSTERIOR, **{"cache.precision": "fp16"})
    run_training(config)
    with (
        np.load(config.folder / "heldout.npz") as ours,
        np.load(plain.folder / "heldout.npz") as theirs,
    ):
        np.testing.assert_array_equal(ours["val"][0], theirs["val"][0])
        np.testing.assert_allclose(ours["probe"][0], theirs["probe"][0], rtol=0.01)  # in fp16
        assert not np.array_equal(ours["val"][-1], theirs["val"][-1])
    assert [r["loss"] for r in losses(config) if "loss" in r] != [
        r["loss"] for r in losses(plain) if "loss" in r
    ]
    run = load_run(config.run.folder)
    model = run.model()
    monkeypatch.setattr(type(model), "posterior_of", None)
    monkeypatch.setattr(type(model), "encode_images", None)
    assert len(run.encoded("train")) == len(run.encoded("train", squares=True)) == 12
    assert len(run.encoded("val")) == 6
    with pytest.raises(UserError, match=r"was started with cache\.latents=posterior, not mean"):
        run_training(make_config("drawn", **{"cache.precision": "fp16"}))
