"""The benchmark of training compares the same work."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from finetune.models.original.families import SD1, SDXL
from workflows.bench import million, training_gpu
from workflows.bench.training_cases import starter
from workflows.bench.training_gpu import Setting


@pytest.fixture
def _state_of_its_own():
    """accelerate keeps the precision of the first training in a process."""
    from accelerate.state import AcceleratorState, GradientState

    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    return starter(tmp_path_factory.mktemp("bench"), "lora")


def test_every_variant_updates_the_weights(case):
    """A bare update on the same batch gives the gradient of the training's."""
    for variant in (case.ours, case.bare, case.without_caches):
        before = [weight.detach().clone() for weight in case.run.weights.values()]
        variant()
        after = case.run.weights.values()
        assert any(not torch.equal(a, b) for a, b in zip(before, after, strict=True))
    seconds = case.timed({"a": case.load}, 3)
    assert len(seconds["a"]) == 3
    assert case.ratio([2.0, 4.0, 9.0], [1.0, 1.0, 3.0]) == 3.0
    assert case.bytes_a_pair() > 4 * 4 * 8 * 8


def test_filling_a_cache_and_the_encoders_alone_make_the_same(case):
    encoded, alone = case.encoding(1)
    assert encoded[0] > 0.3 * alone[0] > 0


def test_a_start_on_many_pairs(tmp_path, monkeypatch):
    monkeypatch.setattr(million, "SHARD", 2000)
    million.write(tmp_path, 4000)
    before, peak, seconds = million.start(tmp_path, 4000)
    assert peak >= before > 10
    assert 0 < seconds < 60


@pytest.mark.quick_cases(1)
@pytest.mark.usefixtures("_state_of_its_own")
@pytest.mark.parametrize("family", [SD1, SDXL])
def test_the_line_of_a_gpu_can_be_computed(monkeypatch, family):
    """On the CPU, with a U-Net of the same layers and few channels."""
    small = {"block_out_channels": [32] * len(family.unet["block_out_channels"])}
    small |= {"attention_head_dim": 2, "layers_per_block": 1}
    if family is SDXL:
        small |= {"transformer_layers_per_block": [1, 1, 1]}
    thin = replace(family, unet=family.unet | small)
    monkeypatch.setattr(training_gpu, "SDXL" if family is SDXL else "SD1", thin)
    setting = Setting("thin", thin, 64, 2, held="bf16", checkpointing=True)
    line = training_gpu.measured(setting, "cpu", "NVIDIA H100 80GB", updates=2)
    assert line.startswith("thin, 2 at a time, frozen weights bf16, gradient checkpointing: ")
    assert "% of 989 TFLOP/s" in line
    assert "images/s" in line
