"""What Stable Diffusion reads of a prompt, and which layer of its text encoder counts."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline

from curate.run.schema import UserError
from finetune.heldout import HeldoutGrid
from finetune.models import load_model, refuse_unsupported
from finetune.models.config import ModelConfig
from finetune.opened_run import load_run
from tests.finetune.conftest import with_text_model


@pytest.fixture
def model(deep_dir):
    """The tiny pipeline with a text encoder of three layers."""
    return load_model(ModelConfig(path=str(deep_dir), resolution=16))


def hidden(model, clip_skip: int | None, text: str = "a dot"):
    return model.prompt_arguments([text], [text], clip_skip)["prompt_embeds"]


def test_prompts_are_encoded_as_captions_are(model):
    found = model.prompt_arguments(["a dot", "b"], ["", "red"])
    assert torch.equal(found["prompt_embeds"], model.encode_captions(["a dot", "b"])["hidden"])
    assert torch.equal(
        found["negative_prompt_embeds"], model.encode_captions(["", "red"])["hidden"]
    )


def test_clip_skip_leaves_out_the_last_layers(model):
    """Where the last layer adds nothing, the one before it says the same; so for both prompts."""
    assert not torch.allclose(hidden(model, 1), hidden(model, 2))
    inner = getattr(model.text_encoder, "text_model", model.text_encoder)
    with torch.no_grad():
        for last in (inner.encoder.layers[-1].self_attn.out_proj, inner.encoder.layers[-1].mlp.fc2):
            last.weight.zero_()
            last.bias.zero_()
    assert torch.allclose(hidden(model, 1), hidden(model, 2), atol=1e-6)
    assert not torch.allclose(hidden(model, 2), hidden(model, 3))
    both = model.prompt_arguments(["a dot"], ["a dot"], 3)
    assert torch.equal(both["prompt_embeds"], both["negative_prompt_embeds"])
    with pytest.raises(UserError, match=r"clip_skip=4 .* has 3 layers up to .* Type clip_skip=3"):
        hidden(model, 4)


@pytest.mark.parametrize("skip", [1, 2, 3])
def test_captions_are_read_from_the_layer_that_diffusers_and_kohya_take(deep_dir, skip):
    """kohya: the n-th hidden state from the end, and the last layer norm. diffusers counts what is left out."""
    model = load_model(ModelConfig(path=str(deep_dir), resolution=16, clip_skip=skip))
    captions = ["a dot", ""]
    found = model.encode_captions(captions)["hidden"]
    pipe = with_text_model(StableDiffusionPipeline.from_pretrained(deep_dir))
    theirs, _ = pipe.encode_prompt(captions, "cpu", 1, False, clip_skip=skip - 1)
    assert torch.equal(found, theirs)
    ids = pipe.tokenizer(
        captions, padding="max_length", max_length=8, truncation=True, return_tensors="pt"
    ).input_ids
    with torch.no_grad():
        states = pipe.text_encoder(ids, output_hidden_states=True).hidden_states
        inner = getattr(pipe.text_encoder, "text_model", pipe.text_encoder)
        torch.testing.assert_close(found, inner.final_layer_norm(states[-skip]))
    assert model.clip_skip == skip
    assert torch.equal(hidden(model, None), found[:1])  # so are prompts, where nothing else is said
    assert torch.equal(hidden(model, 1), hidden(load(deep_dir), None))


def load(folder, **settings):
    return load_model(ModelConfig(path=str(folder), resolution=16, **settings))


def test_another_layer_is_another_model_and_the_same_pictures(deep_dir):
    one, two, same = load(deep_dir), load(deep_dir, clip_skip=2), load(deep_dir, clip_skip=1)
    assert one.fingerprint() == same.fingerprint() != two.fingerprint()
    assert one.caption_fingerprint() == same.caption_fingerprint() != two.caption_fingerprint()
    assert one.image_fingerprint() == two.image_fingerprint()


def test_a_layer_that_is_not_there_is_refused_before_anything_is_loaded(deep_dir, monkeypatch):
    config = ModelConfig(path=str(deep_dir), resolution=16, clip_skip=4)
    says = r"^model\.clip_skip=4 .* has 3 layers up to .* Type model\.clip_skip=3"
    with pytest.raises(UserError, match=says):
        refuse_unsupported(config)
    monkeypatch.setattr("finetune.models.refuse_unsupported", lambda config: None)
    with pytest.raises(UserError, match=says):  # where it is not known before
        load_model(config)
    with pytest.raises(UserError, match=r"model\.clip_skip=0 is out of range"):
        ModelConfig(path="x", resolution=16, clip_skip=0)


def test_what_is_cut_off_changes_nothing(model):
    """The tiny tokenizer reads six letters beside the marks of start and end."""
    assert model.cut_off("abcdef") == model.cut_off("") == ""
    assert model.cut_off("abcdefgh").replace(" ", "") == "gh"
    assert torch.equal(hidden(model, 1, "abcdefgh"), hidden(model, 1, "abcdefxy"))
    assert not torch.equal(hidden(model, 1, "abcdef"), hidden(model, 1, "abcdeg"))


def test_pixels_per_latent(model):
    pixels = torch.zeros(1, 3, 16, 24)
    side = model.pixels_per_latent
    assert model.encode_images(pixels).shape[2:] == (16 // side, 24 // side)


def test_a_network_that_predicts_the_clean_latents_is_trained(make_config, run_training):
    """The base's loss is that of its output as a clean latent; training lowers it, and the export says so."""
    config = make_config(**{"model.prediction_type": "sample", "optim.lr": 3e-3})
    run_training(config)
    saved = json.loads((config.folder / "export/scheduler/scheduler_config.json").read_bytes())
    assert saved["prediction_type"] == "sample"
    run = load_run(config.run.folder)
    items, model = run.items("val", 4), run.model()
    with np.load(config.folder / "heldout.npz") as curve:
        losses = curve["val"]
    t = HeldoutGrid(bins=3, draws=2).timesteps(1000)[2, 1]
    noise = HeldoutGrid(bins=3, draws=2).noise(items.keys[1], 2, 1, items.latents.shape[1:])
    noisy = model.schedule.alphas[t] * items.latents[1] + model.schedule.sigmas[t] * noise
    with torch.no_grad():
        found = model.unet(noisy[None], t, items.conditioning["hidden"][1:2]).sample[0]
    expected = (found - items.latents[1]).square().mean().item()
    assert losses[0][1, 2, 1] == pytest.approx(expected, rel=1e-4)
    assert losses[-1].mean() < losses[0].mean()
