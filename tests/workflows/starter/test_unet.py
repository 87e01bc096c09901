"""The starter U-Net's task and metrics, on random pictures and untrained encoders."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from curate.run.schema import UserError
from workflows.starter import unet as starter_unet
from workflows.starter.architecture import build_clip
from workflows.starter.emoji_sets import Pictures, is_held_out
from workflows.starter.export import export_pipeline
from workflows.starter.text import convert_text_tower
from workflows.starter.tokenizer import load_tokenizer
from workflows.starter.vae import build_vae


def _pictures(noise_of_the_seen: int = 0, noise_of_the_unseen: int = 0) -> Pictures:
    """Sixty pictures of the U-Net's set and as many of another, which count as seen."""
    names = np.array([f"thing {index}" for index in range(60)] * 2)
    sets = np.array([starter_unet.SET] * 60 + ["noto"] * 60)
    seeds = [
        noise_of_the_unseen
        if is_held_out(name) and icons == starter_unet.SET
        else noise_of_the_seen
        for name, icons in zip(names, sets, strict=True)
    ]
    noise = [
        np.random.default_rng((number, seed)).integers(0, 256, (64, 64, 3)).astype(np.uint8)
        for number, seed in enumerate(seeds)
    ]
    return Pictures(np.stack(noise), names, names, sets, np.array([""] * 120))


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> starter_unet.UnetTask:
    torch.manual_seed(0)
    vae = build_vae().eval()
    text_encoder = convert_text_tower(build_clip().text)  # type: ignore[arg-type]
    tokenizer = load_tokenizer(tmp_path_factory.mktemp("tokenizer"))
    return starter_unet.UnetTask(_pictures(), vae, text_encoder, tokenizer, torch.device("cpu"))


def test_latents_have_unit_variance_and_no_held_out_pictures(
    task: starter_unet.UnetTask,
) -> None:
    assert task.latents.std().item() == pytest.approx(1.0, rel=0.1)
    assert 40 < len(task.latents) < 60


def test_the_loss_depends_on_the_seed_only_and_is_near_one_before_training(
    task: starter_unet.UnetTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(task, "recipe", replace(starter_unet.RECIPE, batch_size=8))
    first, again = (task.loss(torch.Generator().manual_seed(1)) for _ in range(2))
    assert torch.equal(first, again)
    assert 0.5 < first.item() < 2.5  # v has unit variance; an untrained network predicts about zero
    first.backward()
    assert all(parameter.grad is not None for parameter in task.model.parameters())


def test_the_placed_stage_continues_from_the_given_weights(
    task: starter_unet.UnetTask, tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(starter_unet, "PLACEMENTS", 2)
    torch.manual_seed(0)
    vae = build_vae().eval()
    text_encoder = convert_text_tower(build_clip().text)  # type: ignore[arg-type]
    encoders = (vae, text_encoder, tokenizer, torch.device("cpu"))
    unet, some = starter_unet.build_unet(), _pictures()
    placed = starter_unet.PlacedUnetTask(unet, some, some, *encoders)
    assert placed.model is unet
    assert placed.latents.shape == (3, *task.latents.shape)
    torch.testing.assert_close(placed.latents[0], task.latents)
    assert not torch.allclose(placed.latents[1], placed.latents[2])
    rows = torch.arange(40)
    drawn = placed.draw_latents(rows, torch.Generator().manual_seed(0))
    came_from = [
        [torch.equal(one, placed.latents[p, n]) for p in range(3)] for n, one in enumerate(drawn)
    ]
    assert all(sum(places) == 1 for places in came_from)
    assert torch.tensor(came_from).any(dim=0).all()


def test_renders_of_other_pictures_are_refused(task: starter_unet.UnetTask) -> None:
    some = _pictures()
    with pytest.raises(UserError, match="show different pictures"):
        starter_unet.PlacedUnetTask(starter_unet.build_unet(), some.select(np.array([0])), some)


@torch.inference_mode()
def test_the_losses_by_noise_level_average_to_the_overall_loss(task: starter_unet.UnetTask) -> None:
    metrics = task.measure(task.model)
    thirds = [metrics[f"heldout_{name}_noise"] for name in ("low", "middle", "high")]
    assert metrics["heldout"] == pytest.approx(np.mean(thirds), rel=0.05)
    assert metrics == task.measure(task.model)


@pytest.fixture(scope="module")
def ldm_folder(tmp_path_factory: pytest.TempPathFactory):
    """An untrained pipeline as users load it."""
    folder = tmp_path_factory.mktemp("ldm") / "starter"
    torch.manual_seed(1)
    text_encoder = convert_text_tower(build_clip().text)  # type: ignore[arg-type]
    export_pipeline(
        starter_unet.build_unet(), build_vae(), text_encoder, starter_unet.SCHEDULER, folder
    )
    return folder


@pytest.mark.slow
def test_the_losses_by_noise_level_go_from_little_noise_to_much(
    ldm_folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the timestep as the loss, each tenth of the thousand timesteps has its own mean."""
    monkeypatch.setattr(starter_unet, "denoising_loss", lambda *given: given[4].float())
    metrics = starter_unet.unet_metrics(_pictures(), ldm_folder, torch.device("cpu"))
    tenths = [metrics[f"loss_unseen_noise_{tenth}"] for tenth in range(10)]
    assert tenths == pytest.approx([49.5 + 100 * tenth for tenth in range(10)], abs=1)
    assert metrics["loss_unseen"] == pytest.approx(499.5, abs=1)


def test_the_loss_without_skin_tones_is_over_those_pictures(
    ldm_folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a loss of 1 for captions with a skin tone and 0 for the others."""
    some = _pictures()
    unseen = some.unseen() & (some.sets == starter_unet.SET)
    marked = np.isin(np.arange(len(some)), unseen.nonzero()[0][:2])
    tone = " dark skin tone"
    captions = np.where(marked, np.char.add(some.captions, tone), some.captions)
    some = replace(some, captions=captions)
    assert unseen.sum() > 4
    monkeypatch.setattr(
        starter_unet,
        "hidden_states",
        lambda e, t, names: torch.tensor([float(tone in name) for name in names]),
    )
    monkeypatch.setattr(starter_unet, "denoising_loss", lambda *given: given[5]["hidden"])
    metrics = starter_unet.unet_metrics(some, ldm_folder, torch.device("cpu"))
    assert metrics["unseen_pictures"] == unseen.sum()
    assert metrics["loss_unseen"] == pytest.approx(2 / unseen.sum(), rel=0.2)
    assert metrics["loss_unseen_plain"] == 0


def test_the_metrics_are_over_unseen_pictures_of_one_set(
    ldm_folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(starter_unet, "FINAL_EVAL_DRAWS", 20)
    metrics = [
        starter_unet.unet_metrics(some, ldm_folder, torch.device("cpu"))
        for some in (_pictures(), _pictures(noise_of_the_seen=1), _pictures(noise_of_the_unseen=1))
    ]
    assert metrics[0] == metrics[1]
    assert metrics[0] != metrics[2]
