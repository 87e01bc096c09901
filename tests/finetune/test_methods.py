"""What each method trains, how it starts, and that it starts the same everywhere."""

from __future__ import annotations

import pytest
import torch

from curate.run.cli import UserError
from finetune.methods.full import Full
from finetune.methods.interface import requiring_grad
from finetune.methods.lora import Lora
from finetune.models import load_model
from finetune.models.config import ModelConfig


@pytest.fixture
def unet(pipeline_dir):
    return load_model(ModelConfig(path=str(pipeline_dir), resolution=16)).unet


def test_full_trains_every_weight(unet):
    names = [name for name, _ in unet.named_parameters()]
    Full().attach(unet, seed=0)
    assert list(Full().trainable(unet)) == names


def test_lora_trains_its_own_fp32_weights_alone_and_starts_as_the_base(unet):
    inputs = (torch.ones(1, 4, 4, 4), torch.tensor([10]), torch.ones(1, 8, 16))
    with torch.no_grad():
        before = unet(*inputs).sample
        Lora(rank=3).attach(unet, seed=0)
        after = unet(*inputs).sample
    assert torch.equal(before, after)
    weights = Lora(rank=3).trainable(unet)
    assert weights
    assert all("lora_" in name for name in weights)
    assert {weight.dtype for weight in weights.values()} == {torch.float32}
    assert {weight.shape[0] for name, weight in weights.items() if "lora_A" in name} == {3}
    # one A and one B for each of q, k, v, out of two attentions in each transformer block
    blocks = sum(name.endswith("attn1") for name, _ in unet.named_modules())
    assert len(weights) == 2 * 4 * 2 * blocks


def test_lora_starts_from_its_seed_and_leaves_the_global_state(pipeline_dir):
    config = ModelConfig(path=str(pipeline_dir), resolution=16)
    state = torch.get_rng_state()
    starts = []
    for seed in (5, 5, 6):
        unet = load_model(config).unet
        torch.set_rng_state(state)
        Lora(rank=2).attach(unet, seed)
        assert torch.equal(torch.get_rng_state(), state)
        starts.append(
            torch.cat([w.flatten() for n, w in requiring_grad(unet).items() if "lora_A" in n])
        )
    assert torch.equal(starts[0], starts[1])
    assert not torch.equal(starts[0], starts[2])
    assert starts[0].std().item() == pytest.approx(
        1 / 2, rel=0.1
    )  # diffusers' "gaussian": N(0, 1/r)


def test_targets_that_do_not_exist_are_refused(unet):
    with pytest.raises(UserError, match=r"method\.targets=\['to_w'\]"):
        Lora(targets=["to_w"]).attach(unet, seed=0)
