"""The noise levels that settings ask for: of the scheduler, of the loss, of pictures and of what is exported."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DiffusionPipeline, PNDMScheduler, StableDiffusionPipeline
from safetensors import safe_open

from curate.run.schema import UserError
from finetune import doctor
from finetune.drawing.config import SamplerConfig
from finetune.drawing.sampling import Prompt, Sampler
from finetune.heldout import HeldoutGrid
from finetune.models import load_model
from finetune.models.config import BETA_SCHEDULES, ModelConfig
from finetune.opened_run import load_run
from tests.finetune.test_objective import alpha_bar

PROMPT = Prompt("k", "a red", 3)


def load(folder, zero_terminal_snr: bool = False, **settings):
    return load_model(
        ModelConfig(path=str(folder), resolution=16, **settings),
        zero_terminal_snr=zero_terminal_snr,
    )


def drawn(run, pipe) -> int:
    """The largest difference between the training's DDIM and diffusers' own, of 255."""
    sampler = Sampler(run.model(), SamplerConfig("ddim", 4, 3.0), 0, 1)
    ours = sampler.draw(run.unet_at(run.exported()), [PROMPT])[0]
    pipe.set_progress_bar_config(disable=True)
    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config, clip_sample=False)
    theirs = pipe(
        PROMPT.caption, height=16, width=16, num_inference_steps=4, guidance_scale=3.0,
        generator=torch.Generator().manual_seed(3), output_type="np",
    ).images[0]  # fmt: skip
    return int(np.abs(np.asarray(ours, int) - (theirs * 255).round()).max())


@pytest.mark.parametrize("kind", BETA_SCHEDULES)
def test_a_schedule_of_choice_is_its_closed_form(tmp_path, pipeline_dir, kind):
    """Also of a pipeline that states its betas one by one, which diffusers takes before any schedule."""
    pipe = StableDiffusionPipeline.from_pretrained(pipeline_dir)
    pipe.scheduler = pipe.scheduler.from_config(
        pipe.scheduler.config, trained_betas=[0.01] * 1000, beta_start=0.1, beta_end=0.2
    )
    pipe.save_pretrained(tmp_path / "other")
    ends = {} if kind == "squaredcos_cap_v2" else {"beta_start": 0.00085, "beta_end": 0.012}
    model = load(tmp_path / "other", beta_schedule=kind, **ends)
    expected = alpha_bar(kind)
    torch.testing.assert_close(model.schedule.alphas.double(), expected.sqrt(), atol=1e-6, rtol=0)
    assert model.scheduler.config["beta_schedule"] == kind
    theirs = Sampler(model, SamplerConfig("euler"), 0, 1).scheduler.alphas_cumprod
    torch.testing.assert_close(theirs.double(), expected, atol=2e-6, rtol=0)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"beta_schedule": "cosine"}, r"model\.beta_schedule=cosine .* squaredcos_cap_v2"),
        ({"beta_start": 0.0}, r"model\.beta_start=0 is out of range"),
        ({"beta_start": 0.02, "beta_end": 0.01}, r"beta_start=0\.02 is not below"),
        ({"beta_schedule": "squaredcos_cap_v2", "beta_end": 0.1}, r"beta_end=0\.1 has no effect"),
    ],
)
def test_schedules_that_are_none(settings, says):
    with pytest.raises(UserError, match=says):
        ModelConfig(path="x", resolution=16, **settings)


def test_ends_without_a_schedule_that_has_them(tmp_path, pipeline_dir):
    pipe = StableDiffusionPipeline.from_pretrained(pipeline_dir)
    pipe.scheduler = pipe.scheduler.from_config(
        pipe.scheduler.config, beta_schedule="squaredcos_cap_v2"
    )
    pipe.save_pretrained(tmp_path / "cosine")
    with pytest.raises(UserError, match=r"type model\.beta_schedule=linear or scaled_linear"):
        load(tmp_path / "cosine", beta_end=0.1)


def test_a_scheduler_that_knows_no_such_levels_gives_way_to_ddim(tmp_path, pipeline_dir):
    pipe = StableDiffusionPipeline.from_pretrained(pipeline_dir)
    pipe.scheduler = PNDMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", prediction_type="v_prediction"
    )  # fmt: skip
    pipe.save_pretrained(tmp_path / "pndm")
    model = load(tmp_path / "pndm", True)
    assert isinstance(model.scheduler, DDIMScheduler)
    said = model.scheduler.config
    names = ("rescale_betas_zero_snr", "timestep_spacing", "clip_sample", "prediction_type")
    assert [said[name] for name in names] == [True, "trailing", False, "v_prediction"]
    torch.testing.assert_close(
        model.scheduler.alphas_cumprod.sqrt(), model.schedule.alphas, atol=1e-6, rtol=0
    )
    assert isinstance(load(tmp_path / "pndm").scheduler, PNDMScheduler)


@pytest.fixture
def zero(make_config):
    """A factory of trainings with zero terminal SNR."""

    def make(name: str, **changes):
        short = {"train.samples": 16, "optim.lr": 0.02, "objective.weighting": "min_snr"}
        return make_config(name, **short, **{"objective.zero_terminal_snr": True}, **changes)

    return make


def test_training_measures_and_exports_a_last_step_without_signal(zero, make_config, run_training):
    run_training(config := zero("full"))
    run = load_run(config.run.folder)
    model, items = run.model(), run.items("val", 4)
    # the last bin, by hand
    with np.load(config.folder / "heldout.npz") as curve:
        losses = curve["val"]
    t = HeldoutGrid(bins=3, draws=2).timesteps(1000)[2, 1]
    noise = HeldoutGrid(bins=3, draws=2).noise(items.keys[1], 2, 1, items.latents.shape[1:])
    signal = alpha_bar("scaled_linear").sqrt()
    alpha = ((signal[t] - signal[-1]) * signal[0] / (signal[0] - signal[-1])).item()
    assert alpha < 0.9 * signal[t]
    sigma = (1 - alpha**2) ** 0.5
    with torch.no_grad():
        noisy = (alpha * items.latents[1] + sigma * noise)[None]
        said = model.unet(noisy, t, items.conditioning["hidden"][1:2]).sample[0]
    expected = (said - (alpha * noise - sigma * items.latents[1])).square().mean().item()
    assert losses[0][1, 2, 1] == pytest.approx(expected, rel=1e-4)
    # what is exported draws alike in plain diffusers
    export = config.folder / "export"
    scheduler = json.loads((export / "scheduler/scheduler_config.json").read_bytes())
    assert (scheduler["rescale_betas_zero_snr"], scheduler["timestep_spacing"]) == (
        True,
        "trailing",
    )
    assert "from the scheduler in this folder; in ComfyUI" in (export / "README.md").read_text()
    assert drawn(run, DiffusionPipeline.from_pretrained(export)) <= 1
    with pytest.raises(UserError, match=r"objective\.zero_terminal_snr=True, not False"):
        doctor.examine(
            plain := make_config("full", **{"train.samples": 16, "optim.lr": 0.02, "objective.weighting": "min_snr"}),
            doctor.read_manifest(plain.curate_dir),
        )  # fmt: skip


def test_an_adapter_says_which_scheduler_draws_with_it(zero, run_training, pipeline_dir):
    run_training(config := zero("adapter", method="lora"))
    export = config.folder / "export"
    readme = (export / "README.md").read_text()
    said = 'rescale_betas_zero_snr=True, timestep_spacing="trailing", clip_sample=False'
    line = f"DDIMScheduler.from_config(pipe.scheduler.config, {said})"
    assert f"pipe.scheduler = {line};" in readme
    pipe = DiffusionPipeline.from_pretrained(pipeline_dir)
    pipe.load_lora_weights(export)
    run = load_run(config.run.folder)
    assert drawn(run, pipe) > 1
    pipe.scheduler = eval(line, {"pipe": pipe, "DDIMScheduler": DDIMScheduler})
    assert drawn(run, pipe) <= 1
    with safe_open(export / "adapter.safetensors", "np") as stored:
        assert (stored.metadata() or {})["ss_zero_terminal_snr"] == "True"


def test_an_adapter_says_its_betas(make_config, run_training, pipeline_dir):
    config = make_config(method="lora", **{"model.beta_schedule": "linear", "train.samples": 8})
    run_training(config)
    readme = (config.folder / "export" / "README.md").read_text()
    said = "trained_betas=None, clip_sample=False, beta_schedule='linear'"
    line = f"DDIMScheduler.from_config(pipe.scheduler.config, {said})"
    assert f"In diffusers type pipe.scheduler = {line}; ComfyUI" in readme
    pipe = DiffusionPipeline.from_pretrained(pipeline_dir)
    pipe.load_lora_weights(config.folder / "export")
    pipe.scheduler = eval(line, {"pipe": pipe, "DDIMScheduler": DDIMScheduler})
    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config, timestep_spacing="trailing")
    assert drawn(load_run(config.run.folder), pipe) <= 1
