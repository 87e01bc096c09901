"""The starter U-Net's task on sixty made-up pictures and untrained encoders."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from workflows.starter import unet as starter_unet
from workflows.starter.architecture import build_clip
from workflows.starter.emoji_sets import Pictures
from workflows.starter.text import convert_text_tower
from workflows.starter.tokenizer import load_tokenizer
from workflows.starter.vae import build_vae


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> starter_unet.UnetTask:
    rng = np.random.default_rng(0)
    names = np.array([f"thing {index}" for index in range(60)])
    pictures = Pictures(
        images=rng.integers(0, 256, (60, 64, 64, 3)).astype(np.uint8),
        captions=names,
        concepts=names,
        sets=np.array([starter_unet.SET] * 60),
        aliases=np.array([""] * 60),
    )
    torch.manual_seed(0)
    vae = build_vae().eval()
    text_encoder = convert_text_tower(build_clip().text)  # type: ignore[arg-type]
    tokenizer = load_tokenizer(tmp_path_factory.mktemp("tokenizer"))
    return starter_unet.UnetTask(pictures, vae, text_encoder, tokenizer, torch.device("cpu"))


def test_latents_have_unit_spread_and_leave_the_held_out_tenth_aside(
    task: starter_unet.UnetTask,
) -> None:
    assert task.latents.std().item() == pytest.approx(1.0, rel=0.1)
    assert 40 < len(task.latents) < 60


def test_the_loss_is_that_of_the_seed_and_near_one_before_training(
    task: starter_unet.UnetTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(starter_unet, "RECIPE", replace(starter_unet.RECIPE, batch_size=8))
    first, again = (task.loss(torch.Generator().manual_seed(1)) for _ in range(2))
    assert torch.equal(first, again)
    assert 0.5 < first.item() < 2.5  # v has unit variance; an untrained network says about nothing
    first.backward()
    assert all(parameter.grad is not None for parameter in task.model.parameters())


@torch.inference_mode()
def test_held_out_figures_average_to_the_whole(task: starter_unet.UnetTask) -> None:
    figures = task.measure(task.model)
    thirds = [figures[f"heldout_{name}_noise"] for name in ("low", "middle", "high")]
    assert figures["heldout"] == pytest.approx(np.mean(thirds), rel=0.05)
    assert figures == task.measure(task.model)
