"""What an export says has to be set, and that plain diffusers then draws what training draws."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DiffusionPipeline,
    DPMSolverMultistepScheduler,
    PNDMScheduler,
    StableDiffusionPipeline,
)
from PIL import Image
from safetensors import safe_open
from transformers import CLIPTextModel

from finetune.conditions import of_picture
from finetune.drawing.as_trained import AsTrained
from finetune.drawing.config import SamplerConfig
from finetune.drawing.sampling import Prompt, Sampler
from finetune.export import export_checkpoint
from finetune.methods.adapters import kohya
from finetune.models import load_model
from finetune.models.config import ModelConfig
from finetune.opened_run import load_run
from tests.finetune.conftest import picture, with_text_model
from tests.finetune.models.conftest import xl_dir

__all__ = ["xl_dir"]

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


@pytest.mark.parametrize("skip", [2, 3])
def test_the_numbers_of_other_programs_are_right_for_each_family(skip):
    """ComfyUI and Forge count from the last layer, which Stable Diffusion 1 alone reads."""
    [said] = AsTrained(clip_skip=skip).notes
    [first] = re.findall(r"Of Stable Diffusion 1 set (.*?)\. The", said)
    assert f"Clip skip to {skip} in AUTOMATIC1111 and Forge" in first
    assert f"CLIP Set Last Layer with -{skip} behind" in first
    [others] = re.findall(r"The pipelines of Stable Diffusion 2 and SDXL (.*?) In diffusers", said)
    assert f"in ComfyUI that is -{skip + 1}, in Forge for SDXL Clip skip {skip + 1}." in others
    assert "AUTOMATIC1111 cannot do it" in others


@pytest.mark.parametrize(("kind", "said"), [("pipeline_dir", "2"), ("xl_dir", None)])
def test_kohyas_name_is_written_where_its_trainers_mean_the_same(request, kind, said):
    config = ModelConfig(path=str(request.getfixturevalue(kind)), resolution=32)
    model = load_model(config)
    config.clip_skip = 2
    assert kohya._facts(model, config).get("ss_clip_skip") == said


@pytest.mark.parametrize(
    ("settings", "zero", "spacing"),
    [
        ({"beta_schedule": "linear", "beta_start": 0.001, "beta_end": 0.02}, False, "leading"),
        ({}, True, "trailing"),
        ({"beta_schedule": "linear", "beta_start": 0.001, "beta_end": 0.02}, True, "trailing"),
    ],
)
def test_the_written_lines_draw_what_training_draws(
    tmp_path, pipeline_dir, settings, zero, spacing
):
    """Of a base whose scheduler's file says nothing of clipping, as Stable Diffusion 1's; DDIM's own default clips."""
    pipe = StableDiffusionPipeline.from_pretrained(pipeline_dir)
    pipe.scheduler = PNDMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear",
        prediction_type="v_prediction", steps_offset=1, skip_prk_steps=True,
    )  # fmt: skip
    pipe.save_pretrained(folder := tmp_path / "pndm")
    base = ModelConfig(path=str(folder), resolution=16, **settings)
    model = load_model(base, zero_terminal_snr=zero)
    ours = Sampler(model, SamplerConfig("ddim", 4, 3.0, spacing), 0, 1).draw(model.unet, [PROMPT])
    pipe = StableDiffusionPipeline.from_pretrained(folder)
    to_set = AsTrained(betas=settings, zero_terminal_snr=zero)
    for note in to_set.notes:
        [line] = re.findall(r"In diffusers type (pipe\.scheduler = .*?\))[.;]", note)
        exec(line, {"pipe": pipe, "DDIMScheduler": DDIMScheduler})
    pipe.set_progress_bar_config(disable=True)
    made: Any = pipe(
        PROMPT.caption, height=16, width=16, num_inference_steps=4, guidance_scale=3.0,
        generator=torch.Generator().manual_seed(3), output_type="np",
    )  # fmt: skip
    theirs = made.images[0]
    assert np.abs(np.asarray(ours[0], int) - (theirs * 255).round()).max() <= 1


def test_a_controlnet_says_what_it_follows(make_config, run_training):
    """The written line makes the condition that training makes."""
    cv2 = pytest.importorskip("cv2")
    config = make_config(method="controlnet", **{"train.samples": 4})
    run_training(config)
    readme = (config.folder / "export" / "README.md").read_text()
    [line] = re.findall(r"condition = (.*?)\. In diffusers type pipe\(prompt, image=", readme)
    found = eval(line, {"cv2": cv2, "np": np, "Image": Image, "picture": picture(3)})
    edges = of_picture(picture(3))[0].numpy()
    assert set(np.unique(edges)) == {0, 255}
    np.testing.assert_array_equal(np.asarray(found), np.stack([edges] * 3, -1))


def test_a_controlnet_of_files_says_which():
    [said] = AsTrained.of({"method": {"name": "controlnet", "condition": "file"}}).notes
    assert "NAME.control.png" in said
    assert "pipe(prompt, image=condition)" in said
    assert AsTrained.of({"method": {"name": "lora"}}).notes == []


def test_nothing_is_said_of_a_training_with_default_settings():
    for config in ({}, {"model": {"clip_skip": 1}}, {"model": {"path": "x"}}):
        found = AsTrained.of(config)
        assert (found.notes, found.readme) == ([], "")
