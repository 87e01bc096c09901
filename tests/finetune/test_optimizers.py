"""Each optimizer is the library's own, holds what is forecast, and goes on from a checkpoint to the same bytes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from torch import nn

from curate.run.schema import UserError, to_dataclass
from finetune import optimizers
from finetune.checkpoint import list_checkpoints, restore_optimizer, save
from finetune.config import OptimConfig, TrainConfig
from tests.finetune.conftest import digests, losses

ROOT = Path(__file__).resolve().parents[2]
NAMES = ("adamw", "adamw8bit", "adafactor", "prodigy")
ON_CPU = ("adamw", "adafactor", "prodigy")


def library(name: str) -> Any:
    """The class that the library offers."""
    package = {"adamw8bit": "bitsandbytes", "prodigy": "prodigyopt"}.get(name)
    if package:
        pytest.importorskip(package)
    if name == "adamw8bit":
        from bitsandbytes.optim import AdamW8bit

        return AdamW8bit
    if name == "prodigy":
        from prodigyopt import Prodigy

        return Prodigy
    return {"adamw": torch.optim.AdamW, "adafactor": torch.optim.Adafactor}[name]


def chosen(name: str, *more: str) -> OptimConfig:
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return to_dataclass(compose("train", [f"optim={name}", *more]), TrainConfig).optim


def weights(*shapes: tuple[int, ...]) -> dict[str, nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return {
        f"w{n}": nn.Parameter(torch.randn(s, generator=generator)) for n, s in enumerate(shapes)
    }


def train(optimizer: torch.optim.Optimizer, trained: dict[str, nn.Parameter], steps: range) -> None:
    for step in steps:
        generator = torch.Generator().manual_seed(step)
        for weight in trained.values():
            weight.grad = torch.randn(weight.shape, generator=generator)
        optimizer.step()


SETTINGS: dict[str, tuple[list[str], dict[str, Any]]] = {
    "adamw": (
        ["optim.lr=0.02", "optim.beta1=0.8", "optim.weight_decay=0.1"],
        {"lr": 0.02, "betas": (0.8, 0.999), "eps": 1e-8, "weight_decay": 0.1},
    ),
    "adamw8bit": (
        ["optim.lr=0.02", "optim.beta2=0.9"],
        {"lr": 0.02, "betas": (0.9, 0.9), "eps": 1e-8, "weight_decay": 0.01},
    ),
    "adafactor": (
        ["optim.decay_rate=-0.5", "optim.clip_threshold=2", "optim.weight_decay=0.1"],
        {"lr": 1e-2, "beta2_decay": -0.5, "d": 2.0, "weight_decay": 0.1},
    ),
    "prodigy": (
        ["optim.d_coef=2", "optim.d0=1e-4", "optim.beta2=0.99"],
        {"lr": 1.0, "betas": (0.9, 0.99), "d_coef": 2.0, "d0": 1e-4, "weight_decay": 0.01}
        | {"use_bias_correction": True, "safeguard_warmup": True},
    ),
}


@pytest.mark.parametrize("name", NAMES)
def test_updates_are_those_of_the_librarys_class(name):
    kind = library(name)
    typed, arguments = SETTINGS[name]
    ours, theirs = (weights((6, 5), (3,), (2, 3, 2, 2)) for _ in range(2))
    train(optimizers.make(chosen(name, *typed), ours.values()), ours, range(5))
    train(kind(list(theirs.values()), **arguments), theirs, range(5))
    plain = weights((6, 5), (3,), (2, 3, 2, 2))
    for key in ours:
        torch.testing.assert_close(ours[key], theirs[key], rtol=1e-5, atol=1e-7)
        assert (ours[key] - plain[key]).abs().max() > 1e-5


@pytest.mark.parametrize("name", NAMES)
def test_an_optimizer_goes_on_from_a_checkpoint_as_if_never_stopped(tmp_path, name):
    library(name)
    optim = chosen(name)
    straight, stopped = (weights((6, 5), (3,)) for _ in range(2))
    train(optimizers.make(optim, straight.values()), straight, range(6))
    first = optimizers.make(optim, stopped.values())
    train(first, stopped, range(3))
    state = {"step": 3, "samples_seen": 3, "heldout": None, "stopped": None}
    stored = save(tmp_path, state, stopped, None, first)
    loaded = stored.weights()
    again = {key: nn.Parameter(loaded[key]) for key in stopped}
    second = optimizers.make(optim, again.values())
    restore_optimizer(second, again, stored)
    train(second, again, range(3, 6))
    for key in straight:
        assert torch.equal(straight[key], again[key])
    assert not torch.equal(straight["w0"], stopped["w0"])


def test_moments_in_8_bits_come_back_as_they_were():
    """What a CPU cannot compute: weights large enough for it, as bitsandbytes sets their state up."""
    kind = library("adamw8bit")
    trained, fresh = weights((64, 80), (3,)), weights((64, 80), (3,))
    first = kind(list(trained.values()))
    for number, weight in enumerate(trained.values()):
        first.init_state(first.param_groups[0], weight, 0, number)
        for value in first.state[weight].values():
            if isinstance(value, torch.Tensor) and value.dtype == torch.uint8:
                value.random_(256)
        first.state[weight]["step"] = 7
    found = optimizers.tensors(trained, first)
    second = kind(list(fresh.values()))
    optimizers.restore(second, fresh, {key: value.clone() for key, value in found.items()})
    again = optimizers.tensors(fresh, second)
    assert found.keys() == again.keys()
    assert found["w0|state1"].dtype == torch.uint8
    for key, value in found.items():
        assert again[key].dtype == value.dtype
        assert torch.equal(again[key], value)
    assert second.state[fresh["w0"]]["step"] == 7


@pytest.mark.parametrize("name", NAMES)
def test_an_optimizer_holds_what_is_forecast(name):
    kind = library(name)
    shapes = ((64, 80), (70,), (8, 6, 3, 3))
    trained = weights(*shapes)
    optimizer = optimizers.make(chosen(name), trained.values())
    if name == "adamw8bit":
        assert isinstance(optimizer, kind)
        for number, weight in enumerate(trained.values()):
            optimizer.init_state(optimizer.param_groups[0], weight, 0, number)
    else:
        train(optimizer, trained, range(1))
    storages = {
        value.untyped_storage().data_ptr(): value.untyped_storage().nbytes()
        for state in optimizer.state.values()
        for value in state.values()
        if isinstance(value, torch.Tensor) and value.ndim
    }
    assert optimizers.state_bytes(name, shapes) == sum(storages.values())


@pytest.mark.parametrize("name", ["adafactor", "prodigy"])
def test_a_training_that_is_cut_resumes_to_the_same_bytes(
    make_config, run_training, monkeypatch, name
):
    library(name)
    optim = {f"optim.{key}": getattr(chosen(name), key) for key in ("name", "lr")}
    changes = optim | {"heldout.items": 0, "optim.schedule": "cosine"}
    straight, config = (make_config(run, **changes) for run in ("straight", "cut"))
    run_training(straight)
    assert len(list_checkpoints(straight.folder)) == 2
    calls, real = 0, os.fsync

    def dying(descriptor: int) -> None:
        nonlocal calls
        calls += 1
        if list_checkpoints(config.folder) and calls > 12:
            raise KeyboardInterrupt
        real(descriptor)

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", dying)
        with pytest.raises(KeyboardInterrupt):
            run_training(config)
    assert len(list_checkpoints(config.folder)) == 1
    run_training(config)
    assert losses(config) == losses(straight)
    ours, theirs = (
        {k: v for k, v in digests(c).items() if "export" not in k} for c in (config, straight)
    )
    assert ours == theirs


def test_another_optimizer_is_another_training(make_config, run_training):
    config = make_config(**{"train.samples": 16})
    run_training(config)
    config.train.samples, config.optim.name = 32, "adafactor"
    with pytest.raises(UserError, match=r"started with optim\.name=adamw, not adafactor"):
        run_training(config)


def test_a_rate_of_another_optimizer_is_changed_on_purpose(make_config, run_training):
    changes = {"optim.name": "adafactor", "train.samples": 16, "optim.clip_threshold": 2.0}
    config = make_config(**changes)
    run_training(config)
    config.train.samples, config.optim.clip_threshold = 32, 1.0
    with pytest.raises(UserError, match=r"type 'resume\.allow=\[optim\.clip_threshold\]'"):
        run_training(config)
    config.resume.allow = ["optim.clip_threshold"]
    run_training(config)
    assert list_checkpoints(config.folder)[-1].state()["changes"][0]["to"] == 1.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["optim=adafactor", "optim.beta1=0.5"],
            r"optim\.beta1=0\.5 has no effect with optim=adafactor",
        ),
        (["optim.d_coef=2"], r"optim\.d_coef=2 has no effect with optim=adamw: it is of prodigy"),
        (["optim.use_bias_correction=false"], r"use_bias_correction=false has no effect"),
        (["optim.name=lion"], r"optim\.name=lion is out of range; accepted: adamw, adamw8bit"),
        (["optim=adafactor", "optim.clip_threshold=0.5"], r"optim\.clip_threshold=0\.5 is out"),
        (["optim=adafactor", "optim.decay_rate=0.8"], r"optim\.decay_rate=0\.8 is out"),
    ],
)
def test_settings_that_do_not_fit_are_refused(arguments, message):
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        cfg = compose("train", arguments)
    with pytest.raises(UserError, match=message):
        to_dataclass(cfg, TrainConfig)


def test_what_is_not_there_is_refused(monkeypatch):
    monkeypatch.setattr(optimizers, "find_spec", lambda _: None)
    monkeypatch.setattr(optimizers.devices, "has_no_gpu", lambda: False)
    for name in ("prodigy", "adamw8bit"):
        with pytest.raises(UserError, match=rf"pip install 'darkroom\[{name}\]'"):
            optimizers.refuse_absent(OptimConfig(name=name))
    monkeypatch.setattr(optimizers.devices, "has_no_gpu", lambda: True)
    with pytest.raises(UserError, match="optim=adamw8bit needs a GPU"):
        optimizers.refuse_absent(OptimConfig(name="adamw8bit"))
    for name in ("adamw", "adafactor"):
        optimizers.refuse_absent(OptimConfig(name=name))
