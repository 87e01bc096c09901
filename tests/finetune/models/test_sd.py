"""What Stable Diffusion reads of a prompt, and which layer of its text encoder counts."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from transformers import CLIPTextConfig, CLIPTextModel

from curate.run.schema import UserError
from finetune.heldout import HeldoutGrid
from finetune.models import load_model
from finetune.models.config import ModelConfig
from finetune.opened_run import load_run


@pytest.fixture
def model(pipeline_dir):
    """The tiny pipeline with a text encoder of three layers."""
    found = load_model(ModelConfig(path=str(pipeline_dir), resolution=16))
    small = found.text_encoder.config.to_dict() | {"num_hidden_layers": 3}
    torch.manual_seed(1)
    found.text_encoder = CLIPTextModel(CLIPTextConfig(**small)).eval()
    return found


def hidden(model, clip_skip: int, text: str = "a dot"):
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
    with pytest.raises(UserError, match=r"clip_skip=4 .* has 3 layers\. Type clip_skip=3"):
        hidden(model, 4)


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
