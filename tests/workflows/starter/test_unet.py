"""The starter U-Net's task on sixty made-up pictures and untrained encoders."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from curate.run.cli import UserError
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


def test_latents_have_unit_spread_and_leave_the_held_out_tenth_aside(
    task: starter_unet.UnetTask,
) -> None:
    assert task.latents.std().item() == pytest.approx(1.0, rel=0.1)
    assert 40 < len(task.latents) < 60


def test_the_loss_is_that_of_the_seed_and_near_one_before_training(
    task: starter_unet.UnetTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(task, "recipe", replace(starter_unet.RECIPE, batch_size=8))
    first, again = (task.loss(torch.Generator().manual_seed(1)) for _ in range(2))
    assert torch.equal(first, again)
    assert 0.5 < first.item() < 2.5  # v has unit variance; an untrained network says about nothing
    first.backward()
    assert all(parameter.grad is not None for parameter in task.model.parameters())


def test_placed_pictures_are_learned_from_the_weights_of_before(
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
def test_held_out_figures_average_to_the_whole(task: starter_unet.UnetTask) -> None:
    figures = task.measure(task.model)
    thirds = [figures[f"heldout_{name}_noise"] for name in ("low", "middle", "high")]
    assert figures["heldout"] == pytest.approx(np.mean(thirds), rel=0.05)
    assert figures == task.measure(task.model)


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


def test_the_shipped_figures_go_from_little_noise_to_much(
    ldm_folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With its noise level for a loss, each tenth of a thousand levels says where it lies."""
    monkeypatch.setattr(starter_unet, "denoising_loss", lambda *given: given[4].float())
    figures = starter_unet.unet_figures(_pictures(), ldm_folder, torch.device("cpu"))
    tenths = [figures[f"loss_unseen_noise_{tenth}"] for tenth in range(10)]
    assert tenths == pytest.approx([49.5 + 100 * tenth for tenth in range(10)], abs=1)
    assert figures["loss_unseen"] == pytest.approx(499.5, abs=1)


def test_the_shipped_figures_without_skin_tones_are_of_those_pictures(
    ldm_folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the mark of its caption for a loss."""
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
    figures = starter_unet.unet_figures(some, ldm_folder, torch.device("cpu"))
    assert figures["unseen_pictures"] == unseen.sum()
    assert figures["loss_unseen"] == pytest.approx(2 / unseen.sum(), rel=0.2)
    assert figures["loss_unseen_plain"] == 0


def test_the_shipped_figures_are_of_unseen_pictures_of_the_one_set(
    ldm_folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(starter_unet, "JUDGED_DRAWS", 20)
    figures = [
        starter_unet.unet_figures(some, ldm_folder, torch.device("cpu"))
        for some in (_pictures(), _pictures(noise_of_the_seen=1), _pictures(noise_of_the_unseen=1))
    ]
    assert figures[0] == figures[1]
    assert figures[0] != figures[2]
