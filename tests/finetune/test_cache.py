"""The cache holds what the encoders say, for these shards and these encoders, and resumes by shard."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save

from curate.pack.sample import read_shard
from curate.run.manifest import read_manifest
from finetune.cache import encode_shards, load_split, pictures_at_once, to_square
from finetune.models import load_model
from finetune.models.config import ModelConfig


@pytest.fixture
def model(pipeline_dir):
    return load_model(ModelConfig(path=str(pipeline_dir), resolution=16))


@pytest.fixture
def shards(tmp_path, random_curation):
    curate, _ = random_curation
    curate(tmp_path / "curate", {"train": 10}, max_samples=4)
    return read_manifest(tmp_path / "curate").shards_of("train")


def encode(model, shards, tmp_path):
    encode_shards(model, tmp_path / "curate", shards, tmp_path / "cache", progress=False)
    return load_split(model, shards, tmp_path / "cache")


def test_rows_are_what_the_encoders_say_about_each_sample(model, shards, tmp_path, random_curation):
    _, picture = random_curation
    split = encode(model, shards, tmp_path)
    samples = [s for info in shards for s in read_shard(tmp_path / "curate" / info.path)]
    assert len(shards) == 3
    assert len(split) == 10
    assert split.keys == [s.key for s in samples]
    assert split.captions == [s.caption for s in samples]
    for index, sample in enumerate(samples):
        image = picture(int(sample.meta["sha256"], 16))  # the seed it was drawn from
        pixels = torch.from_numpy(np.asarray(image)).permute(2, 0, 1)[None] / 127.5 - 1
        alone = model.vae.encode(pixels.float()).latent_dist.mean * 1.5
        at = torch.tensor([index])
        torch.testing.assert_close(split.latents_of(at), alone, atol=1e-5, rtol=1e-5)
        for place, caption in enumerate(sample.captions):
            which = torch.tensor([(place + 0.5) / len(sample.captions)])
            expected = model.encode_captions([caption])["hidden"]
            encoded = split.conditioning_of(at, which)["hidden"]
            torch.testing.assert_close(encoded, expected, atol=2e-3, rtol=2e-3)
    at, first = torch.tensor([0, 1]), torch.zeros(2)
    dropped = split.conditioning_of(at, first, torch.tensor([True, False]))["hidden"]
    assert torch.equal(dropped[0], model.encode_captions([""])["hidden"][0])
    assert torch.equal(dropped[1], split.conditioning_of(at, first)["hidden"][1])


def test_large_pictures_go_through_the_vae_in_small_batches(model, shards, tmp_path, monkeypatch):
    """512 px would take 16 times the memory of 128 px; the latents are the same but for rounding."""
    assert [pictures_at_once(side) for side in (16, 128, 512, 4096)] == [32, 32, 2, 1]
    whole = encode(model, shards, tmp_path)
    sizes = []
    real = type(model).encode_images

    def counted(self, images):
        sizes.append(len(images))
        return real(self, images)

    monkeypatch.setattr(type(model), "encode_images", counted)
    model.resolution = 512
    encode_shards(model, tmp_path / "curate", shards[:1], tmp_path / "large", progress=False)
    assert sizes == [2, 1]
    monkeypatch.setattr("finetune.cache.pictures_at_once", lambda _: 1)
    model.resolution = 16
    encode_shards(model, tmp_path / "curate", shards, tmp_path / "single", progress=False)
    single = load_split(model, shards, tmp_path / "single")
    at = torch.arange(len(whole))
    torch.testing.assert_close(single.latents_of(at), whole.latents_of(at), atol=1e-5, rtol=1e-5)


def test_captions_are_encoded_as_the_pipeline_does(model):
    captions = ["red bar", "a very long caption of letters", ""]
    theirs = model.pipeline().encode_prompt(captions, "cpu", 1, False)[0]
    torch.testing.assert_close(model.encode_captions(captions)["hidden"], theirs)


def test_only_what_is_missing_or_stale_is_encoded_again(model, pipeline_dir, shards, tmp_path):
    encode(model, shards, tmp_path)
    files = sorted((tmp_path / "cache").iterdir())
    before = {file: file.stat().st_mtime_ns for file in files}
    content = files[1].read_bytes()
    files[1].unlink()
    encode(model, shards, tmp_path)
    changed = [f for f in files if f.stat().st_mtime_ns != before[f]]
    assert changed == [files[1]]
    assert files[1].read_bytes() == content
    other = load_model(ModelConfig(path=str(pipeline_dir), resolution=16))
    with torch.no_grad():
        next(other.vae.parameters()).add_(0.1)  # another VAE: nothing of the old is right
    stamps = {file: file.stat().st_mtime_ns for file in files}
    encode(other, shards, tmp_path)
    assert all(file.stat().st_mtime_ns > stamps[file] for file in files)


def test_a_latent_that_is_not_finite_names_shard_and_sample(model, shards, tmp_path):
    with torch.no_grad():
        next(model.vae.encoder.parameters()).fill_(float("nan"))
    with pytest.raises(
        RuntimeError, match=r"train/000000\.tar: the latent of train-\d+ is not finite"
    ):
        encode(model, shards, tmp_path)
    assert not list((tmp_path / "cache").glob("*"))


def test_the_shorter_side_fills_the_square_and_the_centre_stays():
    wide = Image.new("RGB", (64, 32), "black")
    wide.paste("white", (16, 0, 48, 32))
    inside = (1, 1, 15, 15)  # the kernel reaches a little beyond the crop
    assert to_square(wide, 16).crop(inside).getextrema() == ((255, 255),) * 3
    tall = wide.transpose(Image.Transpose.ROTATE_90)
    assert to_square(tall, 16).crop(inside).getextrema() == ((255, 255),) * 3
    assert to_square(wide, 16).size == (16, 16)


def test_a_cache_of_before_conditioning_had_names_is_read_as_it_is(model, shards, tmp_path):
    new = encode(model, shards, tmp_path)
    at, which = torch.arange(10), torch.linspace(0, 0.99, 10)
    hidden, latents = new.conditioning_of(at, which)["hidden"], new.latents_of(at)
    files = sorted((tmp_path / "cache").iterdir())
    for file in files:  # hidden states were called text then
        with safe_open(file, "pt") as stored:
            header = stored.metadata()
        tensors = load_file(file)
        tensors["text"] = tensors.pop("conditioning.hidden")
        data = save(tensors, header)
        file.unlink()  # it is mapped
        file.write_bytes(data)
    stamps = [file.stat().st_mtime_ns for file in files]
    old = encode(model, shards, tmp_path)
    assert [file.stat().st_mtime_ns for file in files] == stamps
    assert torch.equal(old.conditioning_of(at, which)["hidden"], hidden)
    assert torch.equal(old.latents_of(at), latents)
