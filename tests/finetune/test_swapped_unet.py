"""One U-Net that takes the weights of row after row computes what a copy for each row does."""

from __future__ import annotations

import copy
import gc

import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel

from finetune.ema import copy_into
from finetune.heldout import HeldoutGrid, grid_losses
from finetune.methods import prepare
from finetune.models import load_model
from finetune.opened_run import load_run


def copied(config, stored):
    """A U-Net of its own for a row."""
    unet = copy.deepcopy(load_model(config.model).unet)
    if stored is not None:
        prepare(unet, config.method, config.train.seed)
        copy_into(config.method.trainable(unet), stored.weights())
    return unet.requires_grad_(False).eval()


def networks() -> int:
    gc.collect()
    return sum(type(thing) is UNet2DConditionModel for thing in gc.get_objects())


def drawn(model, unet) -> np.ndarray:
    """A picture, with guidance."""
    pipeline = model.pipeline(unet)
    pipeline.set_progress_bar_config(disable=True)
    noise = torch.Generator().manual_seed(1)
    size = {"width": 16, "height": 16, "num_inference_steps": 2, "output_type": "np"}
    return pipeline("red bar", generator=noise, **size).images


@pytest.mark.slow
@pytest.mark.parametrize("method", ["full", "lora"])
def test_losses_and_pictures_are_those_of_a_copy_for_each_row(make_config, run_training, method):
    config = make_config(method=method, **{"optim.lr": 0.01})
    run_training(config)
    others = networks()
    run = load_run(config.run.folder)
    model, items = run.model(), run.items("val", 4)
    first, last = run.checkpoints()
    seen = []
    for stored in (None, first, None, last, first, last, None):
        found = []
        for unet in (run.unet_at(stored), copied(config, stored)):
            assert not unet.training
            assert not any(weight.requires_grad for weight in unet.parameters())
            losses = grid_losses(model, unet, items, HeldoutGrid(3, 2), 8)
            found.append((losses.tobytes(), drawn(model, unet).tobytes()))
        del unet
        assert found[0] == found[1]
        seen.append(found[0])
        assert networks() == others + 1
    assert len({losses for losses, _ in seen}) == 3


def test_a_checkpoint_that_does_not_fit_leaves_no_wrong_weights(make_config, run_training):
    config = make_config(method="full", **{"optim.lr": 0.01})
    run_training(config)
    run = load_run(config.run.folder)
    base = {name: weight.clone() for name, weight in run.model().unet.named_parameters()}
    first, last = run.checkpoints()
    run.unet_at(first)
    (last.path / "ema.safetensors").write_bytes(b"no weights")
    with pytest.raises(Exception, match="damaged"):
        run.unet_at(last)
    again = dict(run.unet_at(first).named_parameters())
    assert all(torch.equal(again[name], weight) for name, weight in first.weights().items())
    assert all(torch.equal(base[n], w) for n, w in run.unet_at(None).named_parameters())
