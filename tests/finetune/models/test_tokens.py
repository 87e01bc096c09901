"""Captions as token ids: the same network as with cached hidden states, and the gradients of plain diffusers."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch
from diffusers import DDPMScheduler, DiffusionPipeline
from transformers import CLIPTextConfig, CLIPTextModel

from finetune.conditioning import Conditioning
from finetune.methods import METHODS, prepare_model
from finetune.models import load_model
from finetune.models.config import ModelConfig
from finetune.models.denoiser import Denoiser, checkpoint_text_encoder
from finetune.objective import denoising_loss
from tests.finetune.models.conftest import save_xl_pipeline

CAPTIONS = ["red bar", "a dot", "", "blue"]


@pytest.fixture(scope="module", params=["sd", "deeper", "xl", "xl, no zeros"])
def folder(request, pipeline_dir, tmp_path_factory) -> Path:
    if request.param == "sd":
        return pipeline_dir
    if request.param == "deeper":  # of three layers, the second of which is read
        made = tmp_path_factory.mktemp("models") / "deeper"
        pipe = DiffusionPipeline.from_pretrained(pipeline_dir)
        settings = pipe.text_encoder.config.to_dict() | {"num_hidden_layers": 3}
        torch.manual_seed(2)
        pipe.text_encoder = CLIPTextModel(CLIPTextConfig(**settings))
        pipe.save_pretrained(made)
        return made
    zeros = request.param == "xl"
    made = tmp_path_factory.mktemp("models") / "xl"
    return save_xl_pipeline(made, force_zeros_for_empty_prompt=zeros)


def config_of(folder: Path) -> ModelConfig:
    skip = 2 if folder.name == "deeper" else 1
    resolution = 32 if "xl" in folder.name else 16
    return ModelConfig(path=str(folder), resolution=resolution, clip_skip=skip)


def inputs(model) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Clean latents, noise and timesteps of four samples."""
    generator = torch.Generator().manual_seed(3)
    side = model.resolution // model.pixels_per_latent
    latents, noise = (torch.randn(4, 4, side, side, generator=generator) for _ in range(2))
    return latents, noise, torch.tensor([10, 300, 600, 990])


@torch.no_grad()
def test_token_ids_are_predicted_from_as_hidden_states_are(folder):
    hidden, tokens = (load_model(config_of(folder), captions=form) for form in ("hidden", "tokens"))
    latents, _, timesteps = inputs(hidden)
    ids = tokens.encode_captions(CAPTIONS)
    assert "hidden" not in ids.tensors
    assert not any(tensor.is_floating_point() for tensor in ids.half().float().tensors.values())
    expected = hidden.predict(hidden.unet, latents, timesteps, hidden.encode_captions(CAPTIONS))
    assert torch.equal(tokens.predict(tokens.unet, latents, timesteps, ids), expected)
    assert torch.equal(Denoiser(tokens)(latents, timesteps, ids), expected)
    with pytest.raises(ValueError, match="token ids, and got hidden states"):
        Denoiser(hidden)(latents, timesteps, hidden.encode_captions(CAPTIONS))
    # and caption dropout gives the empty one
    full = tokens.encode_captions(["red bar"] * 4)
    dropped = full.drop(torch.tensor([True, False, True, False]), tokens.encode_captions([""]))
    mixed = hidden.encode_captions(["", "red bar", "", "red bar"])
    torch.testing.assert_close(
        tokens.predict(tokens.unet, latents, timesteps, dropped),
        hidden.predict(hidden.unet, latents, timesteps, mixed),
    )
    assert hidden.caption_fingerprint() != tokens.caption_fingerprint()
    assert hidden.fingerprint() == tokens.fingerprint()


def plain_gradients(folder: Path, latents, noise, timesteps) -> dict[str, torch.Tensor]:
    """By part and name, of the mean squared error, as diffusers' scripts compute it."""
    pipe = DiffusionPipeline.from_pretrained(folder)
    scheduler = DDPMScheduler.from_config(pipe.scheduler.config)
    noisy, added = scheduler.add_noise(latents, noise, timesteps), None

    def ids(tokenizer):
        return tokenizer(
            CAPTIONS, padding="max_length", max_length=8, truncation=True, return_tensors="pt"
        ).input_ids

    parts = [part for part in ("text_encoder", "text_encoder_2") if hasattr(pipe, part)]
    if len(parts) == 1:
        found = pipe.text_encoder(ids(pipe.tokenizer), output_hidden_states=True)
        hidden = found[0]
        if folder.name == "deeper":
            hidden = pipe.text_encoder.final_layer_norm(found.hidden_states[-2])
        target = scheduler.get_velocity(latents, noise, timesteps)
    else:
        first = pipe.text_encoder(ids(pipe.tokenizer), output_hidden_states=True)
        second = pipe.text_encoder_2(ids(pipe.tokenizer_2), output_hidden_states=True)
        hidden = torch.cat([first.hidden_states[-2], second.hidden_states[-2]], dim=-1)
        pooled = second[0]
        if pipe.config.force_zeros_for_empty_prompt:
            given = torch.tensor([[float(caption != "")] for caption in CAPTIONS])
            hidden, pooled = hidden * given[:, :, None], pooled * given
        ids_of_size = torch.tensor([[32, 32, 0, 0, 32, 32]] * 4)
        added = {"text_embeds": pooled, "time_ids": ids_of_size}
        target = noise
    predicted = pipe.unet(noisy, timesteps, hidden, added_cond_kwargs=added).sample
    torch.nn.functional.mse_loss(predicted, target).backward()
    return {
        f"{part}.{name}": weight.grad
        for part in ("unet", *parts)
        for name, weight in getattr(pipe, part).named_parameters()
    }


@pytest.mark.parametrize("checkpointing", [False, True])
def test_gradients_of_all_networks_are_those_of_plain_diffusers(folder, checkpointing):
    model = load_model(config_of(folder), captions="tokens")
    prepare_model(model, METHODS["full"](text_encoder=True), seed=0)
    network = Denoiser(model).train()
    if checkpointing:
        for encoder in model.text_encoders.values():
            checkpoint_text_encoder(encoder)
    latents, noise, timesteps = inputs(model)
    predict = partial(model.predict, network)
    conditioning = model.encode_captions(CAPTIONS)
    loss = denoising_loss(predict, model.schedule, latents, noise, timesteps, conditioning)
    loss.mean().backward()
    theirs = plain_gradients(folder, latents, noise, timesteps)
    found = 0
    for part, module in {"unet": model.unet, **model.text_encoders}.items():
        for name, weight in module.named_parameters():
            expected = theirs[f"{part}.{name}"]
            assert (weight.grad is None) == (expected is None), (part, name)
            if expected is not None:
                torch.testing.assert_close(weight.grad, expected, atol=2e-7, rtol=2e-4)
                found += part != "unet" and bool(expected.abs().max() > 1e-6)
    assert found > 10
    if checkpointing:
        assert all(
            getattr(layer, "gradient_checkpointing", True)
            for encoder in model.text_encoders.values()
            for layer in encoder.modules()
        )


def test_a_frozen_text_encoder_computes_in_fp32_without_gradients(folder):
    """Whatever the precision of the U-Net, so that token ids are as good as the cache's hidden states."""
    model = load_model(config_of(folder), captions="tokens")
    ids = model.encode_captions(CAPTIONS)
    expected = model.encode_tokens(ids)
    with torch.autocast("cpu", torch.bfloat16):
        found = model.encode_tokens(ids)
    for name, tensor in expected.tensors.items():
        assert torch.equal(found[name], tensor)
        assert not found[name].requires_grad
    prepare_model(model, METHODS["lora"](rank=2, text_encoder=True), seed=0)
    with torch.autocast("cpu", torch.bfloat16):
        live = model.encode_tokens(ids)
        with torch.no_grad():
            still = model.encode_tokens(ids)
    assert live["hidden"].requires_grad
    assert not torch.equal(live["hidden"].float(), expected["hidden"])
    assert torch.equal(still["hidden"], expected["hidden"])


def test_entries_of_the_picture_stay(folder):
    model = load_model(config_of(folder), captions="tokens")
    ids = model.encode_captions(CAPTIONS)
    of_picture = {"time_ids": torch.arange(24.0).reshape(4, 6)}
    found = model.encode_tokens(Conditioning(ids.tensors | of_picture, frozenset(of_picture)))
    assert torch.equal(found["time_ids"], of_picture["time_ids"])
    assert found.of_picture == {"time_ids"}
