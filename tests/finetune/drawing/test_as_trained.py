"""What an export says has to be set, and that plain diffusers then draws what training draws."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline, DPMSolverMultistepScheduler
from safetensors import safe_open
from transformers import CLIPTextModel

from finetune.drawing.as_trained import AsTrained
from finetune.drawing.config import SamplerConfig
from finetune.drawing.sampling import Prompt, Sampler
from finetune.export import export_checkpoint
from finetune.opened_run import load_run
from tests.finetune.conftest import with_text_model

PROMPT = Prompt("k", "a red", 3)


def drawn(run, pipe) -> tuple[np.ndarray, np.ndarray]:
    """A picture by the training's sampler and one by a pipeline of diffusers with its solver."""
    model, last = run.model(), run.exported()
    sampler = Sampler(model, SamplerConfig("dpm_solver++", 4, 3.0), 0, 1)
    ours = sampler.draw(run.unet_at(last), [PROMPT])[0]
    pipe.set_progress_bar_config(disable=True)
    pipe.scheduler = DPMSolverMultistepScheduler.from_config(
        pipe.scheduler.config, timestep_spacing="trailing"
    )
    theirs = pipe(
        PROMPT.caption, height=16, width=16, num_inference_steps=4, guidance_scale=3.0,
        generator=torch.Generator().manual_seed(3), output_type="np",
    ).images[0]  # fmt: skip
    return np.asarray(ours, int), (theirs * 255).round().astype(int)


@pytest.fixture
def skipping(make_config, run_training, deep_dir, capsys):
    """A training with the layer before the last, and what it printed."""
    config = make_config(
        **{"model.path": str(deep_dir), "model.clip_skip": 2, "optim.lr": 0.02, "train.samples": 16}
    )
    run_training(config)
    return config, capsys.readouterr().out


def test_plain_diffusers_draws_the_same_as_it_is_said(skipping):
    config, said = skipping
    readme = (config.folder / "export" / "README.md").read_text()
    assert "pipe(..., clip_skip=1) of SDXL" in readme
    assert "N is 1 less than the base's" in readme
    assert "Clip skip to 2" in readme
    assert "with -2 behind the model, of SDXL with -3." in readme
    assert "draw    It was trained with clip_skip=2" in said
    run = load_run(config.run.folder)
    pipe = DiffusionPipeline.from_pretrained(config.folder / "export")
    ours, theirs = drawn(run, pipe)
    assert np.abs(ours - theirs).max() > 1
    shorter = CLIPTextModel.from_pretrained(
        config.folder / "export", subfolder="text_encoder", num_hidden_layers=2
    )
    ours, theirs = drawn(
        run, DiffusionPipeline.from_pretrained(config.folder / "export", text_encoder=shorter)
    )
    assert np.abs(ours - theirs).max() <= 1


def test_training_reads_the_same_layer_in_cache_and_evaluation(skipping, deep_dir):
    config, _ = skipping
    run = load_run(config.run.folder)
    items, captions = run.items("val", 2), run.captions("val", 2)
    pipe = DiffusionPipeline.from_pretrained(deep_dir)
    theirs, _ = with_text_model(pipe).encode_prompt(captions, "cpu", 1, False, clip_skip=1)
    torch.testing.assert_close(items.conditioning["hidden"], theirs.half().float())


def test_the_file_of_an_adapter_says_it(make_config, run_training, deep_dir):
    for name, skip in (("two", 2), ("one", 1)):
        config = make_config(
            name, method="lora",
            **{"model.path": str(deep_dir), "model.clip_skip": skip, "train.samples": 4},
        )  # fmt: skip
        run_training(config)
        run = load_run(config.run.folder)
        folder, _ = export_checkpoint(run, run.exported())
        for each in (config.folder / "export", folder):
            assert (each / "README.md").exists() == (skip == 2)
            [file] = each.glob(f"{name}*.safetensors")
            with safe_open(file, "np") as stored:
                said = stored.metadata() or {}
            assert said.get("ss_clip_skip") == {2: "2", 1: None}[skip]


def test_nothing_is_said_of_a_training_with_default_settings():
    for config in ({}, {"model": {"clip_skip": 1}}, {"model": {"path": "x"}}):
        found = AsTrained.of(config)
        assert (found.notes, found.readme) == ([], "")
