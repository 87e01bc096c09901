"""Memory from shapes alone, against what torch's profiler sees a real update allocate, and closed forms."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from finetune import frozen, peak
from finetune.conditioning import Conditioning
from finetune.memory import Plan, table, taken
from finetune.methods import METHODS, prepare
from finetune.models import load_model

SHAPES = {"latents": (4, 16, 16), "hidden": (8, 16)}
SAMPLES = 3


def allocated(unet: nn.Module, predict) -> int:
    """The peak of what the CPU's allocator hands out in an update, less what was there before."""
    tensors = {name: torch.randn(SAMPLES, *shape) for name, shape in SHAPES.items()}
    noisy, timesteps = tensors.pop("latents"), torch.arange(SAMPLES)

    def update() -> None:
        predicted = predict(unet, noisy, timesteps, Conditioning(tensors))
        predicted.float().square().mean().backward()

    unet.train()
    update()  # what is allocated once, by libraries
    for weight in unet.parameters():
        weight.grad = None
    with torch.profiler.profile(profile_memory=True) as profile:
        update()
    found = highest = 0
    for event in sorted(
        (e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"),
        key=lambda event: event.start_ns(),
    ):
        found += event.nbytes()
        highest = max(highest, found)
    return highest


@pytest.mark.quick_cases(3)
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize(("method", "held"), [("full", "fp32"), ("lora", "fp32"), ("lora", "bf16")])
def test_the_peak_is_what_a_real_update_allocates(make_config, method, held, checkpointing):
    model = load_model(make_config().model)
    kind = METHODS[method](base_weights=held) if method == "lora" else METHODS[method]()
    prepare(model.unet, kind, 0)
    frozen.hold(model.unet, held)
    if checkpointing:
        model.unet.enable_gradient_checkpointing()
    ours = peak.update_bytes(
        model.unet,
        model.predict,
        {name: torch.empty(1, *shape) for name, shape in SHAPES.items()},
        samples=SAMPLES,
        mixed="no",
    )
    assert ours == pytest.approx(allocated(model.unet, model.predict), rel=0.1)


class Chain(nn.Module):
    """Scales by a trained number for each of 1,000 columns, so many times, and squares."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.weights = nn.ParameterList(nn.Parameter(torch.ones(1000)) for _ in range(times))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for weight in self.weights:
            x = x * weight
        return x


def test_the_peak_of_a_chain_is_counted_by_hand():
    """Every product is kept for the next weight's gradient: samples × 1,000 numbers of 4 bytes for each."""
    samples, chain = 50, Chain(6)

    def found(network: nn.Module) -> int:
        given = {"latents": torch.empty(1, 1000), "hidden": torch.empty(1, 1)}
        return peak.update_bytes(
            network, lambda net, x, *_: net(x), given, samples=samples, mixed="no"
        )

    row = 4 * 1000 * samples
    assert found(Chain(12)) - found(chain) == 6 * row
    assert (
        6 * row <= found(chain) <= (6 + 4) * row + 100
    )  # and what the square's gradient makes on the way
    for weight in chain.weights:
        assert weight.grad is None


def test_mixed_precision_normalises_in_fp32_and_nothing_real_is_touched():
    """A group norm of bf16 activations: CUDA's autocast keeps its input in 4 bytes a number, the CPU's in 2."""
    network = nn.Sequential(nn.Conv2d(8, 64, 1), nn.GroupNorm(1, 64)).requires_grad_(True)
    before = torch.get_rng_state()

    def found(mixed: str) -> int:
        return peak.update_bytes(
            network,
            lambda net, x, *_: net(x),
            {"latents": torch.empty(1, 8, 32, 32), "hidden": torch.empty(1, 1)},
            samples=4,
            mixed=mixed,
        )

    row = 4 * 64 * 32 * 32  # numbers
    assert found("bf16") > (2 + 4 + 4) * row  # convolution, its cast, norm
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.slow
def test_presets_fit_the_gpus_that_they_are_planned_for():
    lora = taken(Plan("sdxl", "lora", "bf16", checkpointing=True, batch=1))
    assert lora.total("adamw") < 12e9
    full = taken(Plan("sd15", "full", "fp32", checkpointing=True, batch=1))
    assert full.total("adamw8bit") < 16e9
    assert full.total("adafactor") < 16e9


def test_a_table_has_a_row_for_each_plan():
    plan = Plan("sd15", "lora", "fp8", checkpointing=True, batch=1)
    lines = list(table(iter([plan])))
    assert len(lines) == 3
    assert lines[2].startswith("| sd15 512 px | lora | fp8 | yes | 1 | ")
    sizes = [float(cell) for cell in lines[2].strip("| ").split(" | ")[-3:]]
    assert 0.86 < min(sizes) <= max(sizes) < 3  # 0.86 billion weights of a byte
