"""ControlNet: its gradients are plain diffusers', it starts as the base, resumes, exports and draws as diffusers does."""

from __future__ import annotations

import io
import os
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    ControlNetModel,
    DiffusionPipeline,
    StableDiffusionControlNetPipeline,
    StableDiffusionXLControlNetPipeline,
)
from PIL import Image

from curate.measures.decode import decode, encode
from curate.run.schema import UserError
from finetune import canny, conditions, doctor, joined
from finetune.cache.framing import View
from finetune.checkpoint import list_checkpoints
from finetune.conditioning import Conditioning
from finetune.crop import to_square
from finetune.drawing.config import SamplerConfig
from finetune.drawing.sampling import Prompt, Sampler
from finetune.export import export, export_checkpoint
from finetune.latents import of_one_shape
from finetune.methods import prepare
from finetune.methods.controlnet import Controlnet
from finetune.models import load_model
from finetune.models.config import ModelConfig
from finetune.models.controlled import ControlledUnet
from finetune.objective import denoising_loss
from finetune.opened_run import load_run
from tests.finetune.conftest import command, curate, digests, losses, picture, start
from tests.finetune.models.conftest import xl_dir

__all__ = ["xl_dir"]
ROOT = Path(__file__).resolve().parents[3]
KINDS = ("sd", "xl")
FILE = {"method.condition": "file"}


class Killed(BaseException):
    """Stands in for the power cut: no ``except Exception`` sees it."""


def beside(seed: int) -> dict[str, bytes]:
    """A condition that has nothing to do with its picture, of twice its size."""
    return {"control": encode(picture(1000 + seed, 32), "png", 95)}


@pytest.fixture(params=KINDS)
def config(request, pipeline_dir, xl_dir) -> ModelConfig:
    """Of a tiny pipeline of each kind."""
    if request.param == "sd":
        return ModelConfig(path=str(pipeline_dir), resolution=16)
    return ModelConfig(path=str(xl_dir), resolution=32)


def moved(config: ModelConfig, scale: float = 0.3):
    """A model whose ControlNet has left its zeros."""
    model = load_model(config)
    method = Controlnet()
    prepare(model.unet, method, 0, model.pixels_per_latent)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in method.trainable(model.unet).values():
            weight.add_(scale * torch.randn(weight.shape, generator=generator))
    return model


def inputs(model, channels: int = 3):
    """Latents, noise, timesteps and conditioning of two pictures."""
    generator = torch.Generator().manual_seed(2)
    side = model.resolution
    shape = (2, 4, side // 4, side // 4)
    latents, noise = (torch.randn(shape, generator=generator) for _ in range(2))
    control = torch.randint(0, 256, (2, channels, side, side), generator=generator).byte()
    captions = model.encode_captions(["red dot", "a bar"])
    conditioning = Conditioning(captions.tensors | {"control": control}, frozenset(["control"]))
    return latents, noise, torch.tensor([100, 700]), conditioning


def plain_prediction(unet, controlnet, noisy, steps, conditioning, side):
    """By diffusers' own modules, as its training examples call them."""
    more = {}
    if "pooled" in conditioning.tensors:
        sizes = torch.tensor([[side, side, 0, 0, side, side]] * 2).float()
        more = {"added_cond_kwargs": {"text_embeds": conditioning["pooled"], "time_ids": sizes}}
    condition = conditioning["control"].float() / 255
    down, middle = controlnet(
        noisy,
        steps,
        encoder_hidden_states=conditioning["hidden"],
        controlnet_cond=condition.expand(-1, 3, -1, -1),
        return_dict=False,
        **more,
    )
    return unet(
        noisy,
        steps,
        encoder_hidden_states=conditioning["hidden"],
        down_block_additional_residuals=down,
        mid_block_additional_residual=middle,
        **more,
    ).sample


@pytest.mark.parametrize("channels", [1, 3])
def test_gradients_are_those_of_plain_diffusers(config, channels):
    model = moved(config)
    latents, noise, steps, conditioning = inputs(model, channels)
    predict = partial(model.predict, model.unet)
    denoising_loss(predict, model.schedule, latents, noise, steps, conditioning).sum().backward()
    plain = DiffusionPipeline.from_pretrained(config.path).unet
    theirs = ControlNetModel.from_unet(plain, conditioning_embedding_out_channels=(16, 32, 256))
    ours: ControlledUnet = model.unet  # type: ignore[assignment]
    theirs.load_state_dict(ours.controlnet.state_dict())
    kept = model.scheduler.alphas_cumprod[steps].view(-1, 1, 1, 1)
    noisy = kept.sqrt() * latents + (1 - kept).sqrt() * noise
    found = plain_prediction(plain, theirs, noisy, steps, conditioning, model.resolution)
    target = noise
    if model.schedule.prediction_type == "v_prediction":
        target = model.scheduler.get_velocity(latents, noise, steps)
    torch.nn.functional.mse_loss(found, target, reduction="none").mean((1, 2, 3)).sum().backward()
    expected = {name: weight.grad for name, weight in theirs.named_parameters()}
    trained = Controlnet().trainable(model.unet)
    assert {name.removeprefix("controlnet.") for name in trained} == expected.keys()
    for name, weight in trained.items():
        other = expected[name.removeprefix("controlnet.")]
        assert weight.grad is not None
        assert other is not None
        torch.testing.assert_close(weight.grad, other, rtol=1e-4, atol=1e-6)
    others = (w for name, w in model.unet.named_parameters() if name not in trained)
    assert all(weight.grad is None for weight in others)


@torch.no_grad()
def test_it_starts_as_the_base_to_the_bit(config):
    model, base = load_model(config), load_model(config)
    prepare(model.unet, Controlnet(), 0, model.pixels_per_latent)
    latents, _, steps, conditioning = inputs(model)
    before = base.predict(base.unet, latents, steps, conditioning)  # which takes no condition
    assert torch.equal(model.predict(model.unet, latents, steps, conditioning), before)
    far = moved(config)
    assert not torch.equal(far.predict(far.unet, latents, steps, conditioning), before)
    alone = Conditioning({k: v for k, v in conditioning.tensors.items() if k != "control"})
    assert torch.equal(far.predict(far.unet, latents, steps, alone), before)


def test_an_export_is_a_folder_for_diffusers_and_draws_what_diffusers_draws(config, tmp_path):
    """Two captions with a condition each and one without, by the pipeline of diffusers and by a sampler here."""
    model = moved(config, scale=0.1)
    assert export(Controlnet(), config, model, tmp_path / "export") < 1e-4
    controlnet = ControlNetModel.from_pretrained(tmp_path / "export")
    control = inputs(model)[3]["control"]
    sampler = Sampler(model, SamplerConfig("ddim", steps=3, guidance_scale=4.0), 0, 4)
    prompts = [Prompt("a", "red dot", control=control[0]), Prompt("b", "a bar")]
    prompts.append(Prompt("c", "a bar", control=control[1]))
    drawn = sampler.draw(model.unet, prompts)
    kind = (
        StableDiffusionXLControlNetPipeline
        if "pooled" in inputs(model)[3].tensors
        else StableDiffusionControlNetPipeline
    )
    pipeline = kind.from_pretrained(config.path, controlnet=controlnet, safety_checker=None)
    pipeline.scheduler = sampler.scheduler
    for place, row in ((0, 0), (2, 1)):
        made: Any = pipeline(
            prompts[place].caption,
            image=control[row][None].float() / 255,
            num_inference_steps=3,
            guidance_scale=4.0,
            height=model.resolution,
            width=model.resolution,
            generator=sampler.generator(prompts[place]),
        )
        difference = np.abs(np.asarray(made.images[0], int) - np.asarray(drawn[place], int))
        assert difference.max() <= 1
    without = sampler.draw(model.unet, [prompts[1]])[0]
    assert without.tobytes() == drawn[1].tobytes()
    again = sampler.draw(model.unet, [Prompt("c", "a bar")])[0]
    assert again.tobytes() != drawn[2].tobytes()
    marks = {sampler.fingerprint(p, "w") for p in (prompts[2], Prompt("c", "a bar"))}
    assert len(marks) == 2


@pytest.fixture
def trained(make_config, tmp_path, xl_dir):
    """A factory of configurations over pictures with conditions."""

    def make(name: str, kind: str = "sd", **changes):
        curate(tmp_path / name / "curate", {"train": 12, "val": 6}, beside=beside)
        changes = {**FILE, "samples.captions": 1, "samples.steps": 2, **changes}
        config = make_config(name, **{"method": "controlnet", **changes})
        if kind == "xl":
            config.model.path, config.model.resolution = str(xl_dir), 32
        return config

    return make


@pytest.mark.parametrize("kind", ["sd", pytest.param("xl", marks=pytest.mark.slow)])
def test_a_run_that_is_killed_goes_on_to_the_same_bytes(
    trained, run_training, monkeypatch, tmp_path, kind
):
    config = trained("run", kind)
    run_training(config)
    whole = losses(config), digests(config)
    config.folder.rename(tmp_path / "whole")
    real_fsync = os.fsync

    def dying(descriptor):
        if list(config.folder.glob("checkpoints/.step-00000008*")):
            raise Killed
        real_fsync(descriptor)

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", dying)
        with pytest.raises(Killed):
            run_training(config)
    run_training(config)
    assert (losses(config), digests(config)) == whole
    _check_checkpoint(config)
    # What starts with its export starts with its losses, and still compares with the base.
    best = load_run(config.run.folder).exported()
    further = trained("further", kind, **{"method.init": str(config.folder / "export")})
    run_training(further)
    kept = np.load(config.folder / "heldout.npz")
    known = np.load(further.folder / "heldout.npz")
    np.testing.assert_array_equal(known["val"][0], kept["val"][0])
    row = kept["steps"].tolist().index(best.step)
    np.testing.assert_array_equal(known["start_val"], kept["val"][row])


def _check_checkpoint(config):
    """The last checkpoint holds a ControlNet that the training moved; its export, opened again, predicts the same."""
    opened = load_run(config.run.folder)
    last = list_checkpoints(config.folder)[-1]
    assert {name.split(".")[0] for name in last.weights()} == {"controlnet"}
    folder, difference = export_checkpoint(opened, last)
    assert difference < 1e-4
    theirs = ControlNetModel.from_pretrained(folder)
    plain = DiffusionPipeline.from_pretrained(config.model.path).unet
    items = load_run(config.run.folder).items("val", 2)
    model = load_model(config.model)
    steps, noisy = torch.tensor([100, 700]), of_one_shape(items.latents)
    with torch.no_grad():
        expected = plain_prediction(
            plain, theirs, noisy, steps, items.conditioning, model.resolution
        )
        again = load_run(config.run.folder)
        found = again.model().predict(
            again.unet_at(last), noisy, steps, _sized(items.conditioning, model.resolution)
        )
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert any(w.abs().max() > 0 for n, w in theirs.state_dict().items() if "controlnet_mid" in n)


def _sized(conditioning: Conditioning, side: int) -> Conditioning:
    """Of pictures that were not cropped, as :func:`plain_prediction` has it."""
    if "time_ids" not in conditioning.tensors:
        return conditioning
    sizes = torch.tensor([[side, side, 0, 0, side, side]] * len(conditioning)).float()
    return Conditioning(conditioning.tensors | {"time_ids": sizes}, conditioning.of_picture)


def test_held_out_losses_start_at_the_base_and_conditions_are_the_files_pixels(
    trained, run_training, make_config
):
    config = trained("run", **{"train.samples": 8})
    run_training(config)
    plain = make_config("plain", method="lora", **{"data.run": "run", "train.samples": 8})
    run_training(plain)
    curves = [np.load(each.folder / "heldout.npz")["val"] for each in (config, plain)]
    np.testing.assert_array_equal(curves[0][0], curves[1][0])
    assert not np.array_equal(curves[0][1], curves[0][0])
    items = load_run(config.run.folder).items("val", 4)
    for key, control in zip(items.keys, items.conditioning["control"], strict=True):
        data = beside(12 + int(key.rpartition("-")[2]))["control"]
        pixels = np.asarray(to_square(decode(data), 16))
        np.testing.assert_array_equal(control.permute(1, 2, 0), pixels)
        assert control.dtype == torch.uint8


def test_two_pictures_of_a_sample_sheet_differ_by_their_condition_only(trained, run_training):
    """What is drawn while training is drawn with the condition of the held-out picture."""
    config = trained("run", **{"train.samples": 32, "optim.lr": 0.05, "ema.decay": None})
    run_training(config)
    opened = load_run(config.run.folder)
    last = list_checkpoints(config.folder)[-1]
    items = opened.items("val", 1)
    [caption] = opened.captions("val", 1)
    sampler = Sampler(opened.model(), SamplerConfig("dpm_solver++", 2, 5.0), 0, 1)
    key = "held-out-1"
    with Image.open(config.folder / f"samples/step-{last.step:08d}/{key}.png") as stored:
        drawn = np.asarray(stored, int)
    for control, same in ((items.conditioning["control"][0], True), (None, False)):
        [found] = sampler.draw(opened.unet_at(last), [Prompt(key, caption, control=control)])
        assert bool(np.abs(np.asarray(found, int) - drawn).max() <= 1) is same


@pytest.mark.slow
def test_two_processes_train_what_one_does(trained, run_training, tmp_path):
    one, two = (trained(name, **{"samples.captions": 0}) for name in ("one", "two"))
    run_training(one)
    launch = ["-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", "29577"]
    typed = command(two, "method.condition=file")
    process = start([*launch, str(ROOT / "finetune" / "train.py"), *typed], tmp_path)
    output = process.communicate(timeout=600)[0]
    assert process.returncode == 0, output
    for ours, theirs in zip(losses(one), losses(two), strict=True):
        assert theirs == pytest.approx(ours, rel=1e-3)


def test_conditions_of_edges_are_opencvs(trained, run_training):
    cv2 = pytest.importorskip("cv2")
    config = trained("run", **{"method.condition": "canny", "train.samples": 4})
    run_training(config)
    items = load_run(config.run.folder).items("val", 2)
    for key, control in zip(items.keys, items.conditioning["control"], strict=True):
        pixels = np.array(picture(12 + int(key.rpartition("-")[2])))
        np.testing.assert_array_equal(control[0], cv2.Canny(pixels, 100, 200))
    assert conditions.of_picture(Image.new("RGB", (8, 8), "red")).sum() == 0


def test_what_cannot_be_followed_is_refused(make_config, monkeypatch, pipeline_dir):
    config = make_config(method="controlnet", **FILE)
    with pytest.raises(UserError, match="12 of the 12 pictures of train have no condition"):
        doctor.examine(config, joined.read(config))
    monkeypatch.setattr(canny, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install \"darkroom\[control\]\""):
        doctor.examine_settings(make_config(method="controlnet"))
    doctor.examine_settings(config)
    with pytest.raises(UserError, match=r"method\.condition='depth' is not valid|depth"):
        Controlnet(condition="depth")
    model = load_model(ModelConfig(path=str(pipeline_dir), resolution=16))
    with pytest.raises(UserError, match="remove lora_scale"):
        Controlnet().rescale(model.unet, 0.5)


def test_an_export_of_another_architecture_is_refused(pipeline_dir, xl_dir, tmp_path):
    xl = ModelConfig(path=str(xl_dir), resolution=32)
    export(Controlnet(), xl, moved(xl), tmp_path / "xl")
    model = load_model(ModelConfig(path=str(pipeline_dir), resolution=16))
    prepare(model.unet, Controlnet(), 0, 4)
    assert Controlnet().files(tmp_path / "xl")
    assert not Controlnet().files(Path(pipeline_dir) / "unet")
    with pytest.raises(UserError, match="does not fit the model"):
        Controlnet().starting_weights(model, tmp_path / "xl", "method.init=xl")


def test_conditions_of_files_keep_their_colours():
    stream = io.BytesIO()
    Image.new("RGB", (6, 4), (1, 2, 3)).save(stream, "PNG")
    found = conditions.recipe("file", 4).make(stream.getvalue(), View((4, 4)))
    assert found.shape == (3, 4, 4)
    assert found.flatten(1).unique(dim=1).flatten().tolist() == [1, 2, 3]
