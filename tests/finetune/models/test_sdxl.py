"""What SDXL's U-Net is given: in training, in the cache, in pictures, and beside diffusers' own pipeline."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    StableDiffusionXLImg2ImgPipeline,
    StableDiffusionXLPipeline,
)
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from PIL import Image
from transformers import CLIPTextConfig, CLIPTextModel

from curate.measures import decode as images
from curate.pack.writer import write_shard
from curate.run.manifest import Manifest, read_manifest, write_manifest
from curate.run.schema import UserError
from finetune.cache import encode_shards, load_split
from finetune.caption_gain import Exchanged, without_caption
from finetune.conditioning import Conditioning
from finetune.crop import Crop, to_square
from finetune.data import Batches
from finetune.drawing.config import SamplerConfig
from finetune.drawing.sampling import Frame, Prompt, Sampler
from finetune.export import export
from finetune.heldout import items_of
from finetune.methods import METHODS, prepare
from finetune.models import load_model, refuse_unsupported
from finetune.models.config import ModelConfig
from finetune.models.sdxl import StableDiffusionXL
from finetune.objective import denoising_loss
from finetune.retention.base_pictures import pictures_of
from finetune.retention.replay import ReplayBatches
from tests.curate.pack.oracle import plan
from tests.finetune.models.conftest import save_xl_pipeline

SIZES = {"a": (32, 32), "b": (300, 200), "c": (41, 90)}  # width and height


def load(folder: Path, **settings) -> StableDiffusionXL:
    found = load_model(ModelConfig(path=str(folder), resolution=32, **settings))
    assert isinstance(found, StableDiffusionXL)
    return found


@pytest.fixture
def model(xl_dir):
    return load(xl_dir)


@pytest.fixture
def split(model, tmp_path):
    """Pictures of three sizes, encoded."""
    folder = tmp_path / "sizes" / "curate"
    [planned] = plan({"train": list(SIZES)}, 10)
    rows = [{"key": k, "split": "train", "captions": [f"a {k}", k]} for k in planned.keys]
    stored = [images.encode(picture(k), "png", 95) for k in planned.keys]
    info = write_shard(folder, planned, rows, "digest", "png", stored)
    write_manifest(folder, Manifest((info,), {}, {}, "png"))
    shards = read_manifest(folder).shards_of("train")
    encode_shards(model, folder, shards, tmp_path / ".cache", progress=False)
    return load_split(model, shards, tmp_path / ".cache")


def picture(key: str) -> Image.Image:
    rng = np.random.default_rng(ord(key))
    width, height = SIZES[key]
    small = rng.integers(0, 256, (8, 8, 3), np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def seen_by(pipe: StableDiffusionXLPipeline, **arguments) -> dict[str, torch.Tensor]:
    """What the U-Net of ``pipe`` was given in its first step, by the names of its arguments."""
    seen: list[dict[str, torch.Tensor]] = []
    real = pipe.unet.forward

    def forward(sample, timestep, encoder_hidden_states, added_cond_kwargs, **rest):
        seen.append(
            {"sample": sample, "t": timestep, "hidden": encoder_hidden_states, **added_cond_kwargs}
        )
        return real(
            sample, timestep, encoder_hidden_states, added_cond_kwargs=added_cond_kwargs, **rest
        )

    pipe.unet.forward = forward
    pipe(num_inference_steps=1, output_type="latent", **arguments)
    del pipe.unet.forward
    return seen[0]


@pytest.mark.parametrize("zeros", [True, False])
@torch.no_grad()
def test_the_unet_is_given_what_diffusers_gives_it(tmp_path, zeros):
    folder = save_xl_pipeline(tmp_path / "xl", force_zeros_for_empty_prompt=zeros)
    model, pipe = load(folder), StableDiffusionXLPipeline.from_pretrained(folder)
    pipe.set_progress_bar_config(disable=True)
    prompts = ["a red dot", "b"]
    theirs = seen_by(pipe, prompt=prompts, height=32, width=32)
    # The negative prompts come first; without one, the pipeline's setting decides. Two at a time, as it encodes them.
    ours = Conditioning.cat([model.encode_captions(each) for each in (["", ""], prompts)])
    assert torch.equal(ours["hidden"], theirs["hidden"])
    assert torch.equal(ours["pooled"], theirs["text_embeds"])
    assert ours["hidden"].shape == (4, 8, 24)
    assert ours["pooled"].shape == (4, 12)
    assert bool(ours["hidden"][0].any()) != zeros
    assert theirs["time_ids"].tolist() == [[32, 32, 0, 0, 32, 32]] * 4
    entries = model.picture_entries([Crop.whole(32)] * 4)
    assert torch.equal(entries["time_ids"], theirs["time_ids"])
    # and so to the bit what it computes, with the sizes or, as new pictures are asked for, without
    sample, t = theirs["sample"], theirs["t"]
    expected = pipe.unet(
        sample, t, theirs["hidden"],
        added_cond_kwargs={"text_embeds": theirs["text_embeds"], "time_ids": theirs["time_ids"]},
    ).sample  # fmt: skip
    for conditioning in (ours, Conditioning(ours.tensors | entries)):
        assert torch.equal(model.predict(model.unet, sample, t, conditioning), expected)
    cropped = model.picture_entries([Crop((64, 32), (16, 0), (32, 32))] * 4)
    other = model.predict(model.unet, sample, t, Conditioning(ours.tensors | cropped))
    assert not torch.allclose(other, expected, atol=1e-4)
    arguments = model.prompt_arguments(prompts, ["", ""])
    again = seen_by(model.pipeline(), **arguments, height=32, width=32)
    for name in ("hidden", "text_embeds", "time_ids"):
        assert torch.equal(again[name], theirs[name])


def test_a_negative_prompt_and_clip_skip_are_diffusers(model, xl_dir):
    pipe = StableDiffusionXLPipeline.from_pretrained(xl_dir)
    pipe.set_progress_bar_config(disable=True)
    theirs = seen_by(pipe, prompt="a dot", negative_prompt="red", height=32, width=32)
    arguments = model.prompt_arguments(["a dot"], ["red"])
    found = seen_by(model.pipeline(), **arguments, height=32, width=32)
    for name in ("hidden", "text_embeds"):
        assert torch.equal(found[name], theirs[name])
    # diffusers counts the layers that are left out, here the layer that counts
    theirs = seen_by(pipe, prompt="a dot", clip_skip=0, height=32, width=32)
    assert torch.equal(model.encode_captions(["a dot"])["hidden"][0], theirs["hidden"][1])
    with pytest.raises(UserError, match=r"clip_skip=2 .* has 1 layer up to"):
        model.prompt_arguments(["a"], [""], 2)


def test_clip_skip_of_encoders_of_more_layers(model, xl_dir):
    pipe = StableDiffusionXLPipeline.from_pretrained(xl_dir)
    deeper = CLIPTextConfig(**model.text_encoder.config.to_dict() | {"num_hidden_layers": 3})
    model.text_encoder = pipe.text_encoder = CLIPTextModel(deeper).eval()
    theirs = pipe.encode_prompt("a dot", clip_skip=1, do_classifier_free_guidance=False)
    ours = model.prompt_arguments(["a dot"], [""], 2)
    assert torch.equal(ours["prompt_embeds"], theirs[0])
    assert torch.equal(ours["pooled_prompt_embeds"], theirs[2])


def test_captions_of_clip_skip_and_of_a_layer_that_is_not_there(xl_dir, tmp_path):
    pipe = StableDiffusionXLPipeline.from_pretrained(xl_dir)
    config = pipe.text_encoder.config.to_dict() | {"num_hidden_layers": 3}
    pipe.text_encoder = CLIPTextModel(CLIPTextConfig(**config)).eval()
    pipe.save_pretrained(tmp_path / "deep")
    found = load(tmp_path / "deep", clip_skip=2).encode_captions(["a dot", ""])
    theirs = pipe.encode_prompt(["a dot"], clip_skip=1, do_classifier_free_guidance=False)
    torch.testing.assert_close(found["hidden"][:1], theirs[0])
    torch.testing.assert_close(found["pooled"][:1], theirs[2])
    assert not found["hidden"][1].any()
    with pytest.raises(
        UserError, match=r"model\.clip_skip=2 .* has 1 layer up to .* Type model\.clip_skip=1"
    ):
        refuse_unsupported(ModelConfig(path=str(xl_dir), resolution=32, clip_skip=2))


def test_the_cache_holds_the_size_and_crop_of_each_picture(split):
    """As torchvision resizes and crops, which diffusers' training does."""
    at = torch.arange(3)
    found = dict(zip(split.keys, split.conditioning_of(at)["time_ids"].tolist(), strict=True))
    assert found == {
        "a": [32, 32, 0, 0, 32, 32],
        "b": [200, 300, 0, 8, 32, 32],
        "c": [90, 41, 19, 0, 32, 32],
    }
    for key, (width, height) in SIZES.items():
        scale = 32 / min(width, height)
        whole = (round(width * scale), round(height * scale))
        top, left = map(int, found[key][2:4])
        assert (top, left) == tuple(round((side - 32) / 2) for side in whole[::-1])
        resized = picture(key).resize(whole, Image.Resampling.BICUBIC)
        theirs = np.asarray(resized.crop((left, top, left + 32, top + 32)), int)
        ours = np.asarray(to_square(picture(key), 32), int)
        assert abs(theirs - ours).mean() < 4  # half a pixel of the resized picture at most
        elsewhere = np.asarray(resized.crop((0, 0, 32, 32)), int)
        assert key == "a" or abs(elsewhere - ours).mean() > 8


def test_ids_beyond_fp16_are_kept(model, split):
    """A picture's side of 4,097 px is none in fp16, as which the captions are cached."""
    [ids] = model.picture_entries([Crop.square((4097, 5003), 32)])["time_ids"].tolist()
    assert ids[:2] == [5003, 4097]
    assert split.conditioning_of(torch.tensor([0]))["time_ids"].dtype == torch.float32


def test_pictures_of_the_base_stand_beside_those_of_the_data(model, split, tmp_path):
    """They say of themselves that they are whole squares, and have both encoders' conditioning."""
    pictures = pictures_of(tmp_path, "replay", model, lambda: model.unet, ["a cat", "dog", "a cat"])
    assert len(set(pictures.keys)) == 3, "the same prompt again starts from other noise"
    assert not torch.equal(pictures.latents[0], pictures.latents[2])
    made = ReplayBatches(
        split,
        batch_size=6,
        caption_dropout=0.5,
        timesteps=1000,
        seed=1,
        pictures=pictures,
        replayed=3,
    )
    for batch in map(made, range(3)):
        mask, ids = batch.replayed, batch.conditioning["time_ids"]
        assert mask is not None
        assert (ids[mask] == torch.tensor([32, 32, 0, 0, 32, 32])).all()
        for row in mask.nonzero().flatten().tolist():
            place = pictures.keys.index(batch.keys[row])
            assert torch.equal(batch.latents[row], pictures.latents[place])
            own = model.encode_captions([pictures.prompts[place]])
            empty = model.encode_captions([""])
            for name in ("hidden", "pooled"):
                near = [
                    torch.allclose(batch.conditioning[name][row], each[name][0], atol=5e-3)
                    for each in (own, empty)
                ]
                assert any(near)
    again = pictures_of(
        tmp_path, "replay", model, lambda: pytest.fail("drawn twice"), pictures.prompts
    )
    assert torch.equal(again.latents, pictures.latents)
    other = pictures_of(tmp_path, "replay", model, lambda: model.unet, ["a cat"], held="bf16")
    assert len(other) == 1


@torch.no_grad()
def test_a_training_batch_is_a_step_of_diffusers_bit_by_bit(model, split, xl_dir):
    """Its text-to-image script for SDXL, written down for one batch, with the VAE's mean for its sample."""
    batch = Batches(split, batch_size=6, caption_dropout=0.5, timesteps=1000, seed=1)(0)
    pipe = StableDiffusionXLPipeline.from_pretrained(xl_dir)
    for module in (pipe.vae, pipe.unet, pipe.text_encoder, pipe.text_encoder_2):
        module.requires_grad_(False)  # with gradients, torch takes other kernels
    scheduler = DDPMScheduler.from_config(pipe.scheduler.config)
    ours = denoising_loss(
        lambda noisy, t, c: model.predict(model.unet, noisy, t, c),
        model.schedule, batch.latents, batch.noise, batch.timesteps, batch.conditioning,
    )  # fmt: skip
    dropped = 0
    for place, key in enumerate(batch.keys):
        width, height = SIZES[key]
        cropped = np.array(to_square(picture(key), 32))
        # Pictures are encoded in batches of one size, filled up; another size changes the last bit.
        pixels = torch.from_numpy(np.stack([cropped] * 32)).permute(0, 3, 1, 2).float() / 127.5 - 1
        latents = pipe.vae.encode(pixels).latent_dist.mode()[:1]
        latents = latents * pipe.vae.config.scaling_factor
        assert torch.equal(latents[0], batch.latents[place])
        t, noise = batch.timesteps[place : place + 1], batch.noise[place : place + 1]
        scale = 32 / min(width, height)
        corner = (round((height * scale - 32) / 2), round((width * scale - 32) / 2))
        ids = torch.tensor([[height, width, *corner, 32, 32]], dtype=torch.float32)
        given = batch.conditioning.take([place])
        for caption in (f"a {key}", key, None):
            text = caption or ""
            hidden, _, pooled, _ = pipe.encode_prompt([text], do_classifier_free_guidance=False)
            if caption is None:
                hidden, pooled = torch.zeros_like(hidden), torch.zeros_like(pooled)
            if torch.equal(hidden.half().float(), given["hidden"]):
                break
        else:
            raise AssertionError("the batch has a caption that is none of its picture's")
        dropped += caption is None
        hidden, pooled = hidden.half().float(), pooled.half().float()
        # add_noise rounds 1 - alpha_bar to fp32 before it takes the root: the same but for the last bit.
        alpha_bar = scheduler.alphas_cumprod[t].double()
        noisy = alpha_bar.sqrt().float() * latents + (1 - alpha_bar).sqrt().float() * noise
        torch.testing.assert_close(noisy, scheduler.add_noise(latents, noise, t))
        predicted = pipe.unet(
            noisy, t, hidden,
            added_cond_kwargs={"text_embeds": pooled, "time_ids": ids},
        ).sample  # fmt: skip
        loss = torch.nn.functional.mse_loss(predicted, noise, reduction="none").mean(dim=(1, 2, 3))
        alone = denoising_loss(
            lambda noisy, t, c: model.predict(model.unet, noisy, t, c),
            model.schedule, latents, noise, t, given,
        )  # fmt: skip
        assert alone.item() == loss.item()
        assert ours[place].item() == pytest.approx(loss.item(), rel=1e-5)
    assert 0 < dropped < 6


def test_another_caption_does_not_bring_its_pictures_size(model, split):
    items = items_of(split, 3, lambda keys: keys)
    captions = [split.captions[split.keys.index(key)] for key in items.keys]
    exchanged = Exchanged.of(items, captions)
    own, other = exchanged.own.conditioning, exchanged.other.conditioning
    assert len(own["time_ids"].unique(dim=0)) == 3
    assert torch.equal(own["time_ids"], other["time_ids"])
    for name in ("hidden", "pooled"):
        assert not any(torch.equal(*pair) for pair in zip(own[name], other[name], strict=True))
        rows = [list(map(float, row.flatten())) for row in own[name]]
        assert all(list(map(float, row.flatten())) in rows for row in other[name])
    none = without_caption(items, split.empty).conditioning
    assert torch.equal(none["time_ids"], items.conditioning["time_ids"])
    assert not none["hidden"].any()


@pytest.mark.parametrize(
    "settings", [{}, {"latents_mean": [0.1, 0.2, 0.3, 0.4], "latents_std": [2.0, 3, 4, 5]}]
)
def test_latents_are_those_that_the_pipeline_starts_from(xl_dir, monkeypatch, settings):
    """With the mean and spread that some VAEs have, and without; but for the VAE's noise."""
    model = load(xl_dir)
    model.vae.register_to_config(**settings)
    monkeypatch.setattr(DiagonalGaussianDistribution, "sample", lambda self, _=None: self.mode())
    pixels = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    theirs = model.picture_pipeline().prepare_latents(
        pixels, torch.tensor([0]), 1, 1, torch.float32, "cpu", add_noise=False
    )
    torch.testing.assert_close(model.encode_images(pixels), theirs)
    with torch.no_grad():  # back to what the VAE itself gave
        unscaled = model.vae.encode(pixels).latent_dist.mode()
        expected = model.vae.decode(unscaled).sample
    torch.testing.assert_close(model.decode_latents(theirs), expected, atol=1e-4, rtol=1e-4)


def test_a_picture_starts_from_another_as_in_diffusers(xl_dir):
    model = load(xl_dir)
    start = Image.fromarray(np.random.default_rng(3).integers(0, 256, (32, 48, 3), np.uint8))
    settings = SamplerConfig("ddim", steps=4, guidance_scale=3.0)
    sampler = Sampler(model, settings, 0, 2, Frame(48, 32, start=start, strength=0.6))
    prompt = Prompt("k", "a dot", seed=5, negative="red")
    ours = np.asarray(sampler.draw(model.unet, [prompt])[0], int)
    pipe = StableDiffusionXLImg2ImgPipeline.from_pretrained(xl_dir)
    pipe.set_progress_bar_config(disable=True)
    pipe.scheduler = DDIMScheduler.from_config(
        pipe.scheduler.config, timestep_spacing="trailing", clip_sample=False
    )
    theirs = pipe(
        "a dot",
        negative_prompt="red",
        image=start,
        strength=0.6,
        num_inference_steps=4,
        guidance_scale=3.0,
        generator=torch.Generator().manual_seed(5),
        output_type="np",
    ).images[0]
    assert ours.shape == (32, 48, 3)
    assert abs(ours - (theirs * 255).round()).max() <= 1


def test_each_part_is_in_the_fingerprints(xl_dir, tmp_path):
    before = load(xl_dir)
    known = [before.image_fingerprint(), before.caption_fingerprint(), before.fingerprint()]
    assert len(set(known)) == 3

    def changed(part: str) -> list[bool]:
        model = load(xl_dir)
        with torch.no_grad():
            next(getattr(model, part).parameters()).add_(0.1)
        now = [model.image_fingerprint(), model.caption_fingerprint(), model.fingerprint()]
        return [new != old for new, old in zip(now, known, strict=True)]

    assert changed("vae") == [True, False, True]
    assert changed("text_encoder") == [False, True, True]
    assert changed("text_encoder_2") == [False, True, True]
    assert changed("unet") == [False, False, True]
    encoded = load(save_xl_pipeline(tmp_path / "xl", force_zeros_for_empty_prompt=False))
    assert encoded.image_fingerprint() == known[0]
    assert encoded.caption_fingerprint() != known[1]
    assert load(xl_dir).fingerprint() == known[2]


def test_what_one_of_the_tokenizers_cuts_off(model):
    assert model.cut_off("abcdef") == model.cut_off("") == ""
    assert model.cut_off("abcdefgh").replace(" ", "") == "gh"


@pytest.mark.parametrize("method", ["full", "lora", "locon"])
def test_exports_load_in_plain_diffusers(xl_dir, tmp_path, method):
    config = ModelConfig(path=str(xl_dir), resolution=32)
    targets = {"locon": ["to_q", "proj_in", "conv1", "ff.net.2"]}.get(method, ["to_q", "to_out.0"])
    settings = {} if method == "full" else {"rank": 2, "alpha": 3.0, "targets": targets}
    trained = METHODS["full" if method == "full" else "lora"](**settings)
    model = load_model(config)
    prepare(model.unet, trained, seed=0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in trained.trainable(model.unet).values():
            weight.add_(0.1 * torch.randn(weight.shape, generator=generator))
    folder = tmp_path / "export"
    assert export(trained, config, model, folder) < 1e-5
    pipe = StableDiffusionXLPipeline.from_pretrained(folder if method == "full" else xl_dir)
    pipe.set_progress_bar_config(disable=True)
    arguments = {"prompt": "a dot", "num_inference_steps": 2, "height": 32, "width": 32}
    latents = torch.randn(1, 4, 8, 8, generator=generator)

    def drawn(pipeline):
        return pipeline(**arguments, latents=latents.clone(), output_type="np").images

    before = drawn(pipe)
    if method != "full":
        pipe.load_lora_weights(str(folder))
    ours = model.pipeline()
    ours.set_progress_bar_config(disable=True)
    np.testing.assert_allclose(drawn(pipe), drawn(ours), atol=1e-5)
    assert method == "full" or abs(drawn(ours) - before).max() > 1e-3


def test_pipelines_that_are_not_the_base_model_are_refused(xl_dir, tmp_path):
    def changed(name: str, part: str = "unet", **settings) -> Path:
        folder = tmp_path / name
        shutil.copytree(xl_dir, folder)
        path = folder / part / ("config.json" if part == "unet" else "scheduler_config.json")
        known = {} if settings.get("_class_name") else json.loads(path.read_bytes())
        path.write_text(json.dumps(known | settings))
        for weights in folder.glob("unet/*.safetensors"):
            if part == "unet":  # of the changed shape
                from diffusers import UNet2DConditionModel

                weights.unlink()
                unet = UNet2DConditionModel.from_config(json.loads(path.read_bytes()))
                unet.save_pretrained(folder / "unet")
        return folder

    with pytest.raises(UserError, match=r"9 input channels .* inpainting"):
        load(changed("inpaint", in_channels=9))
    with pytest.raises(UserError, match=r"8 output channels .* variance"):
        load(changed("variance", out_channels=8))
    with pytest.raises(UserError, match=r"six numbers.*Refiners are not supported"):
        load(changed("refiner", projection_class_embeddings_input_dim=5 * 8 + 12))
    with pytest.raises(UserError, match="timestep_type=continuous"):
        load(
            changed("cos", "scheduler", timestep_type="continuous", prediction_type="v_prediction")
        )
    folder = changed("edm", "scheduler", _class_name="EDMEulerScheduler", sigma_min=0.002)
    index = json.loads((folder / "model_index.json").read_bytes())
    index["scheduler"] = ["diffusers", "EDMEulerScheduler"]
    (folder / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(UserError, match="EDMEulerScheduler without a table"):
        load(folder)
