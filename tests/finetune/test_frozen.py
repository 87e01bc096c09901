"""Weights held in fewer bits compute what diffusers computes with them, in both directions, and train."""

from __future__ import annotations

import copy
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from torch import nn
from torch.nn import functional

from curate.run.schema import UserError, to_dataclass
from finetune import frozen
from finetune.checkpoint import list_checkpoints
from finetune.config import TrainConfig
from finetune.curve import HeldoutCurve
from finetune.heldout import HeldoutGrid, grid_losses
from finetune.methods import METHODS, prepare, prepare_model
from finetune.models import load_model, parts
from finetune.models.denoiser import Denoiser
from finetune.opened_run import load_run
from finetune.retention.regularise import Regulariser
from tests.finetune.conftest import command, digests, losses, start

ROOT = Path(__file__).resolve().parents[2]
ADAPTERS = ("lora", "dora", "lokr", "loha", "locon")


def chosen(method: str, held: str):
    kind, _, convolutions = method.partition(" of ")
    further = ["method.targets=[to_q,conv1,conv2]"] if convolutions else []
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        cfg = compose("train", [f"method={kind}", f"method.base_weights={held}", *further])
    return to_dataclass(cfg, TrainConfig).method


def inputs() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {
        "sample": torch.randn((2, 4, 4, 4), generator=generator),
        "timestep": torch.tensor([30, 700]),
        "encoder_hidden_states": torch.randn((2, 8, 16), generator=generator),
    }


def held_unet(config, method, base: nn.Module | None = None) -> Any:
    unet: Any = copy.deepcopy(base) if base else load_model(config.model).unet
    frozen.round_to(unet, method.held())
    prepare(unet, method, 0)
    frozen.hold(unet, method.held())
    return unet


def biases(unet: nn.Module) -> list[torch.Tensor]:
    """Of the layers whose weights are held."""
    return [layer.bias for _, layer in frozen.layers(unet) if layer.bias is not None]


def predicted(unet: nn.Module, mixed: bool) -> torch.Tensor:
    with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
        return unet(**inputs()).sample.float()


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("held", ["bf16", "fp8"])
def test_predictions_are_those_of_diffusers_layerwise_casting(make_config, held, mixed):
    config = make_config()
    theirs = load_model(config.model).unet
    for bias in biases(theirs):  # they cast biases, too; we do not
        bias.data = bias.data.to(frozen.TYPES[held]).float()
    ours = held_unet(config, chosen("lora", held), theirs)
    plain = predicted(theirs, mixed)
    theirs.enable_layerwise_casting(
        storage_dtype=frozen.TYPES[held], compute_dtype=torch.bfloat16 if mixed else torch.float32
    )
    with torch.no_grad():
        assert torch.equal(predicted(ours, mixed), predicted(theirs, mixed))
        same = mixed and held == "bf16"  # mixed precision rounds fp32 weights to just these
        assert torch.equal(predicted(ours, mixed), plain) == same


def test_predictions_in_bf16_are_those_of_weights_cast_to_bf16(make_config):
    """Of a U-Net in bf16 but for its normalisations, in mixed precision, where bf16 weights are taken as they are."""
    config = make_config()
    theirs = load_model(config.model).unet
    for _, layer in frozen.layers(theirs):
        layer.to(torch.bfloat16)
    ours = held_unet(config, chosen("lora", "bf16"))
    with torch.no_grad():
        assert torch.equal(predicted(ours, True), predicted(theirs, True))


def test_biases_are_neither_rounded_nor_held(make_config):
    config = make_config()
    base = load_model(config.model).unet.requires_grad_(False)
    for number, bias in enumerate(biases(base)):
        bias.data += 1e4 + number / 3  # 8 bits could not hold it
    ours = held_unet(config, chosen("lora", "fp8"), base)
    pairs = list(zip(biases(ours), biases(base), strict=True))
    assert len(pairs) > 10
    assert all(torch.equal(mine, theirs) for mine, theirs in pairs)


def pair(config, kind) -> tuple[Any, Any]:
    """A U-Net whose weights are held, and one whose weights are rounded and fp32, with the same adapter."""
    ours = held_unet(config, kind)
    theirs: Any = load_model(config.model).unet
    frozen.round_to(theirs, kind.held())
    prepare(theirs, kind, 0)
    for unet in (ours, theirs):
        torch.manual_seed(2)
        for weight in kind.trainable(
            unet
        ).values():  # where adapters start, half of the gradients are 0
            weight.data += 0.05 * torch.randn(weight.shape)
            assert weight.dtype == torch.float32
    return ours, theirs


ALL = [*ADAPTERS, "dora of convolutions"]


@pytest.mark.quick_cases(4)
@pytest.mark.parametrize("held", ["bf16", "fp8"])
@pytest.mark.parametrize("method", ALL)
def test_what_cures_forgetting_reads_held_weights_as_rounded_ones(make_config, method, held):
    kind = chosen(method, held)
    ours, theirs = pair(make_config(), kind)
    for unet in (ours, theirs):
        weights = kind.trainable(unet)
        for weight in weights.values():
            weight.grad = torch.zeros_like(weight)
        model: Any = SimpleNamespace(unet=unet)
        Regulariser(model, kind, 0.7, 0.0).add_gradient(weights, factor=2.0)
    mine, other = (kind.trainable(unet) for unet in (ours, theirs))
    assert all(weight.grad.abs().max() > 0 for weight in mine.values())  # type: ignore[union-attr]
    for name, weight in mine.items():
        torch.testing.assert_close(weight.grad, other[name].grad)
    scaled = [
        kind.scaled(unet, {n: w.detach() for n, w in kind.trainable(unet).items()}, 0.3, dict)
        for unet in (ours, theirs)
    ]
    for name, weight in scaled[0].items():
        assert weight.dtype == torch.float32
        torch.testing.assert_close(weight, scaled[1][name])
    with torch.no_grad():
        for factor in (0.3, 0.0, 1.0):
            for unet in (ours, theirs):
                kind.rescale(unet, factor)
            ends = predicted(ours, False), predicted(theirs, False)
            torch.testing.assert_close(*ends, rtol=1e-4, atol=1e-5)
        with kind.switched_off(ours), kind.switched_off(theirs):
            ends = predicted(ours, False), predicted(theirs, False)
            torch.testing.assert_close(*ends, rtol=1e-4, atol=1e-5)


@pytest.mark.quick_cases(8)
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("held", ["bf16", "fp8"])
@pytest.mark.parametrize("method", ALL)
def test_gradients_are_those_of_rounded_weights_in_fp32(make_config, method, held, checkpointing):
    kind = chosen(method, held)
    ours, theirs = pair(make_config(), kind)
    for unet in (ours, theirs):
        if checkpointing:
            unet.enable_gradient_checkpointing()
        unet.train()
        predicted(unet, False).square().sum().backward()
    pairs = zip(kind.trainable(ours).values(), kind.trainable(theirs).values(), strict=True)
    for mine, other in pairs:
        assert other.grad.abs().max() > 0  # type: ignore[union-attr]
        torch.testing.assert_close(mine.grad, other.grad, rtol=1e-4, atol=1e-5)


def test_an_adapter_starts_as_the_rounded_base(make_config):
    config = make_config()
    for method in ALL:
        base = load_model(config.model).unet
        frozen.round_to(base, "fp8")
        with torch.no_grad():
            torch.testing.assert_close(
                predicted(held_unet(config, chosen(method, "fp8")), False),
                predicted(base, False),
                rtol=1e-5,
                atol=1e-5,
            )


@pytest.mark.parametrize(("held", "size"), [("bf16", 2), ("fp8", 1)])
def test_frozen_weights_take_fewer_bytes_and_nothing_else_does(make_config, held, size):
    unet = held_unet(make_config(), chosen("lora", held))
    there = dict(frozen.layers(unet))
    assert len(there) > 20
    names = {f"{name}.weight" for name in there}
    for name, weight in unet.named_parameters():
        assert weight.element_size() == (size if name in names else 4), name
    large = sum(weight.numel() for name, weight in unet.named_parameters() if name in names)
    whole = sum(weight.numel() for weight in unet.parameters() if not weight.requires_grad)
    assert large > 0.9 * whole


def test_autograd_keeps_weights_as_they_are_held():
    layer = nn.Conv2d(8, 8, 3, padding=1, stride=2).requires_grad_(False)
    plain = copy.deepcopy(layer)
    frozen.round_to(plain, "fp8")
    holder = nn.Sequential(layer)
    frozen.round_to(holder, "fp8")
    frozen.hold(holder, "fp8")
    x = torch.randn(2, 8, 9, 9, requires_grad=True)
    saved: list[torch.Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        out = holder(x)
    assert [each.dtype for each in saved] == [torch.float8_e4m3fn]
    (ours,) = torch.autograd.grad(out.square().sum(), x)
    same = functional.conv2d(x, plain.weight, plain.bias, 2, 1)
    (theirs,) = torch.autograd.grad(same.square().sum(), x)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_weights_beyond_8_bits_are_refused():
    layer: Any = nn.Sequential(nn.Linear(2, 2)).requires_grad_(False)
    layer[0].weight.data[0, 0] = 500.0
    frozen.round_to(layer, "bf16")
    with pytest.raises(
        UserError, match=r"base_weights=fp8 cannot hold the weights of 0, up to 500"
    ):
        frozen.round_to(layer, "fp8")


def test_releasing_gives_the_base_back(make_config):
    config = make_config()
    base, unet = load_model(config.model).unet, held_unet(config, chosen("lora", "fp8"))
    frozen.release(unet, lambda: load_model(config.model).unet)
    with torch.no_grad():
        assert torch.equal(predicted(unet, False), predicted(base, False))
    assert {weight.dtype for weight in unet.parameters()} == {torch.float32}


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize("held", ["bf16", "fp8"])
def test_a_training_measures_resumes_and_exports(
    make_config, run_training, monkeypatch, capsys, held
):
    changes = {"method": "lora", "method.base_weights": held}
    straight, config = (make_config(name, **changes) for name in ("straight", "cut"))
    run_training(straight)
    assert f"fp32, frozen weights {held}" in capsys.readouterr().out
    real = os.fsync

    def dying(descriptor: int) -> None:
        if list_checkpoints(config.folder):
            raise KeyboardInterrupt
        real(descriptor)

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", dying)
        with pytest.raises(KeyboardInterrupt):
            run_training(config)
    run_training(config)
    assert losses(config) == losses(straight)
    ours, theirs = (
        {k: v for k, v in digests(c).items() if "export" not in k} for c in (config, straight)
    )
    assert ours == theirs

    # What was measured is the loss of the weights that were held; evaluation, in fp32, knows that it is another one.
    run = load_run(config.run.folder)
    model, items = run.model(), run.items("val", 4)
    curve = HeldoutCurve.load(config.folder / "heldout.npz")
    assert set(curve.precisions) == {f"no, weights {held}"}
    grid = HeldoutGrid(bins=3, draws=2, seed=0)
    exact = grid_losses(model, model.unet, items, grid, 5)
    frozen.round_to(model.unet, held)
    rounded = grid_losses(model, model.unet, items, grid, 5)
    torch.testing.assert_close(torch.tensor(rounded), torch.tensor(curve.val[0]), rtol=1e-5, atol=0)
    assert abs(exact - rounded).max() > 1e-6


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize("held", ["fp8", "bf16"])
def test_a_dora_of_convolutions_is_held_back_scaled_and_exported(
    make_config, run_training, capsys, held
):
    changes = {"method.targets": ["to_q", "conv1"], "method.base_weights": held}
    cures = {"regularise.weight_l2": 0.01, "export.scale": [0.5, 1], "export.pictures": 2}
    run_training(make_config(method="dora", **changes, **cures, **{"train.samples": 16}))
    said = capsys.readouterr().out
    assert "of what was trained: held-out loss " in said
    assert "(loaded again by " in said  # so that what is exported is what is in memory


@pytest.mark.parametrize("text_encoder", [False, True])
def test_what_is_held_is_not_sent_whatever_is_distributed(make_config, text_encoder):
    config = make_config(method="lora", **{"method.text_encoder": text_encoder})
    config.method.base_weights = "fp8"
    model = load_model(config.model, captions=config.captions)
    frozen.round_to(model.unet, "fp8")
    prepare_model(model, config.method, 0)
    frozen.hold(model.unet, "fp8")
    network = Denoiser(model) if text_encoder else model.unet
    frozen.keep_unsent(network)
    unsent = set(vars(network)["_ddp_params_and_buffers_to_ignore"])
    small = {name for name, each in network.named_parameters() if each.element_size() == 1}
    assert unsent == small
    assert len(small) > 20


@pytest.mark.slow
@pytest.mark.parametrize("text_encoder", [False, True])
@pytest.mark.parametrize("held", ["bf16", "fp8"])
def test_two_processes_train_what_one_does(make_config, run_training, tmp_path, held, text_encoder):
    changes = {
        "method": "lora",
        "method.base_weights": held,
        "method.text_encoder": text_encoder,
    }
    one, two = make_config("one", **changes), make_config("two", **changes)
    run_training(one)
    launch = ["-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", "29573"]
    further = f"method.base_weights={held}", f"method.text_encoder={text_encoder}"
    arguments = command(two, *further)
    process = start([*launch, str(ROOT / "finetune" / "train.py"), *arguments], tmp_path)
    output = process.communicate(timeout=600)[0]
    assert process.returncode == 0, output
    for ours, theirs in zip(losses(one), losses(two), strict=True):
        assert theirs == pytest.approx(ours, rel=1e-4)


def test_other_weights_are_another_training(make_config, run_training):
    config = make_config(method="lora", **{"train.samples": 16})
    run_training(config)
    config.train.samples, config.method.base_weights = 32, "bf16"
    with pytest.raises(UserError, match=r"started with method\.base_weights=fp32, not bf16"):
        run_training(config)


def test_only_adapters_have_frozen_weights():
    with pytest.raises(UserError, match=r"method\.base_weights=int4 is out of range"):
        METHODS["lora"](base_weights="int4")  # type: ignore[call-arg]
    assert not hasattr(METHODS["full"](), "base_weights")


def test_encoders_wait_elsewhere_until_they_are_needed(make_config, monkeypatch):
    """The device ``meta`` stands for the place where they wait: what is there cannot compute."""
    model = load_model(make_config().model)
    images, captions = torch.rand(1, 3, 16, 16) * 2 - 1, ["a red bar"]
    before = model.encode_images(images), model.encode_captions(captions)["hidden"]
    monkeypatch.setattr(parts, "PARKED", torch.device("meta"))
    kept = [copy.deepcopy(module) for module in model.encoders]
    model.park()
    assert {module.device.type for module in model.encoders} == {"meta"}
    assert model.device.type == "cpu"
    for module, whole in zip(model.encoders, kept, strict=True):
        back = vars(copy.deepcopy(whole))
        monkeypatch.setattr(module, "to", lambda _, m=module, b=back: vars(m).update(b))
    assert torch.equal(model.encode_images(images), before[0])
    assert torch.equal(model.encode_captions(captions)["hidden"], before[1])


def test_what_is_trained_is_not_parked(make_config, monkeypatch):
    model: Any = load_model(make_config().model)
    monkeypatch.setattr(parts, "PARKED", torch.device("meta"))
    next(model.text_encoder.parameters()).requires_grad_(True)
    model.park()
    assert [module.device.type for module in model.encoders] == ["meta", "cpu"]
