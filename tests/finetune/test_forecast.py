"""Forecasts against what a training then takes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from finetune import forecast
from finetune.cache import CACHE
from finetune.conditioning import Conditioning
from finetune.data import Batch
from finetune.methods import prepare
from finetune.models import load_model
from finetune.objective import NoiseSchedule


class Network(nn.Module):
    """Scales, with a trained weight, then squares: the backward pass needs both inputs, of 4 bytes a number."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4, 1, 1))

    def forward(self, noisy: torch.Tensor) -> torch.Tensor:
        return (noisy * self.weight).square()


def test_what_autograd_keeps_grows_with_the_samples():
    flat = torch.full((1000,), 0.5**0.5)
    latents = torch.randn(3, 4, 8, 8)
    batch = Batch(
        ["a", "b", "c"],
        latents,
        latents,
        torch.zeros(3, dtype=torch.int64),
        Conditioning({"hidden": torch.zeros(3, 1)}),
    )
    network = Network()
    model: Any = SimpleNamespace(
        device=torch.device("cpu"),
        schedule=NoiseSchedule(flat, flat, "epsilon"),
        predict=lambda net, noisy, *_: net(noisy),
    )
    sample = 4 * 8 * 8 * 4
    kept = forecast.activation_bytes(model, network, batch)
    # The noisy latents, their scaled copy, and the difference whose square is the loss.
    assert [kept(n) for n in (1, 2, 16)] == [3 * sample * n for n in (1, 2, 16)]
    assert network.weight.grad is None
    assert network.training


@pytest.mark.parametrize("method", ["full", "lora"])
@pytest.mark.parametrize("keep", [None, 1])
def test_the_disk_holds_what_was_forecast(make_config, run_training, capsys, method, keep):
    config = make_config(method=method, **{"checkpoint.every": 8, "checkpoint.keep": keep})
    run_training(config)
    said = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("disk"))
    checkpoints = sorted((config.folder / "checkpoints").glob("step-*"))
    assert " 4 checkpoints of " in said
    assert (", 2 of them cut to " in said) == bool(keep)
    assert len(checkpoints) == 4
    model = load_model(config.model)
    prepare(model.unet, config.method, 0)
    text = forecast.disk(config, model, 18, 27)
    cached, each, export = (
        _bytes(text.partition(before)[2].split(after)[0])
        for before, after in (("captions ", " less"), (" of ", ","), ("export ", ";"))
    )
    assert text.split(";")[0] == said.split(";")[0].removeprefix("disk").strip()
    assert _on_disk(checkpoints[-1], "*.safetensors") == pytest.approx(each, rel=0.3)
    assert _on_disk(config.folder / "export", "**/*.safetensors") == pytest.approx(export, rel=0.3)
    packs = config.run.folder.parent / CACHE
    assert _on_disk(packs, "**/*.safetensors") == pytest.approx(cached, rel=0.5)


def test_a_disk_that_is_too_small_is_said(make_config, monkeypatch):
    config = make_config(**{"checkpoint.keep": None})
    model = load_model(config.model)
    prepare(model.unet, config.method, 0)
    assert "NOT ENOUGH" not in forecast.disk(config, model, 12, 12)
    monkeypatch.setattr(forecast.shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    assert "1.0 kB free, NOT ENOUGH: type checkpoint.keep=2" in forecast.disk(config, model, 12, 12)
    config.checkpoint.keep = 1
    assert "NOT ENOUGH: type a larger checkpoint.every" in forecast.disk(config, model, 12, 12)


def test_memory_counts_what_the_optimizer_holds(make_config):
    config = make_config()
    model: Any = load_model(config.model)
    prepare(model.unet, config.method, 0)
    weights = config.method.trainable(model.unet)
    count = sum(weight.numel() for weight in weights.values())
    whole = count + sum(
        w.numel() for part in (model.vae, model.text_encoder) for w in part.parameters()
    )
    text = forecast.memory(model, weights, lambda n: 1000 * n, 4, averaged=True, processes=1)
    total, fixed, optimizer = (
        _bytes(text.partition(before)[2].split(after)[0])
        for before, after in (("about ", " an"), ("weights ", ","), ("optimizer ", ","))
    )
    assert fixed == pytest.approx(4 * whole, rel=0.06)
    assert optimizer == pytest.approx(16 * count, rel=0.06)
    assert total == pytest.approx(4 * whole + 16 * count + 4000, rel=0.06)
    assert "activations of 4 at a time 4.0 kB" in text


def test_the_time_that_is_left_is_said_once(make_config, run_training, capsys):
    run_training(make_config(**{"train.samples": 80}))
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("time ")]
    assert len(said) == 2  # the other, at the end, is what the time went to
    assert " more: 10 updates at " in said[0]
    assert ", 3 evaluations at " in said[0]  # after 48, 64 and 80 samples


def _bytes(text: str) -> float:
    number, unit = text.split()
    return float(number) * {"B": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9}[unit]


def _on_disk(folder, pattern: str) -> int:
    return sum(path.stat().st_size for path in folder.glob(pattern))
