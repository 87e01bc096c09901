"""What every adapter does alike: starts as the base, trains and resumes exactly, is scaled, starts a training."""

from __future__ import annotations

import copy
import shutil

import pytest
import torch
from hydra import compose, initialize_config_dir
from safetensors.torch import load_file

from curate.run.manifest import read_manifest
from curate.run.schema import UserError, to_dataclass
from finetune import doctor
from finetune.checkpoint import list_checkpoints
from finetune.config import TrainConfig
from finetune.ema import copy_into
from finetune.methods import METHODS, prepare
from finetune.methods.dora import Dora
from finetune.methods.loha import Loha
from finetune.methods.lokr import Lokr
from finetune.methods.lora import Lora
from finetune.models import load_model
from finetune.models.config import PACKAGES, ModelConfig
from finetune.opened_run import load_run
from tests.finetune.conftest import digests, losses

KINDS = {"lora": Lora, "dora": Dora, "lokr": Lokr, "loha": Loha}
PARTS = {"lora": "lora", "dora": "lora", "lokr": "lokr", "loha": "hada"}  # of their names
TARGETS = ["to_q", "to_out.0", "proj_in", "ff.net.2", "conv1"]
OTHER = {  # settings of a training; in half precision peft computes some of them otherwise
    "dora": {"optim.mixed_precision": "bf16"},
    "lokr": {"method.factor": 2, "method.tucker": True},
    "loha": {"method.tucker": True, "optim.mixed_precision": "bf16"},
}


@pytest.fixture
def unet(pipeline_dir):
    return load_model(ModelConfig(path=str(pipeline_dir), resolution=16)).unet


INPUTS = (torch.randn(1, 4, 4, 4), torch.tensor([500]), torch.randn(1, 8, 16))


@torch.no_grad()
def output(unet) -> torch.Tensor:
    return unet(*INPUTS).sample


def moved(unet, method, scale: float = 0.3) -> None:
    """Move the trained weights away from where they started."""
    with torch.no_grad():
        for weight in method.trainable(unet).values():
            weight.add_(
                scale * torch.randn(weight.shape, generator=torch.Generator().manual_seed(1))
            )


@pytest.mark.parametrize("tucker", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_an_adapter_starts_as_the_base_and_every_weight_of_it_can_learn(unet, kind, tucker):
    if tucker and kind not in ("lokr", "loha"):
        pytest.skip("it has no cores")
    method = KINDS[kind](rank=1, alpha=3.0, targets=TARGETS, **({"tucker": True} if tucker else {}))
    before = output(unet)
    prepare(unet, method, seed=0)
    assert torch.equal(output(unet), before)
    weights = method.trainable(unet)
    assert all(f".{PARTS[kind]}_" in name for name in weights)
    assert {weight.dtype for weight in weights.values()} == {torch.float32}
    optimizer = torch.optim.Adam(weights.values(), lr=0.01)
    start = {name: weight.detach().clone() for name, weight in weights.items()}
    for _ in range(2):  # what is multiplied with zero moves in the second update
        optimizer.zero_grad()
        unet(*INPUTS).sample.square().sum().backward()
        optimizer.step()
    assert all(not torch.equal(weight, start[name]) for name, weight in weights.items())


@pytest.mark.parametrize("kind", KINDS)
def test_the_start_is_the_seeds(pipeline_dir, kind):
    config, found = ModelConfig(path=str(pipeline_dir), resolution=16), []
    for seed in (5, 5, 6):
        model = load_model(config)
        prepare(model.unet, method := KINDS[kind](rank=2), seed)
        found.append(
            torch.cat([w.detach().flatten() for w in method.trainable(model.unet).values()])
        )
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("targets", [["no_such_layer"], ["attentions.0"]])
def test_targets_that_take_no_adapter_are_refused(unet, kind, targets):
    with pytest.raises(UserError, match=r"method\.targets=\['.*'\] does not fit the model"):
        prepare(unet, KINDS[kind](targets=targets), seed=0)


@pytest.mark.parametrize("kind", KINDS)
def test_an_adapter_is_scaled_between_base_and_trained(unet, pipeline_dir, kind):
    """Of one layer by hand: the change of its weight, times the factor."""
    base = load_model(ModelConfig(path=str(pipeline_dir), resolution=16)).unet
    prepare(unet, method := KINDS[kind](rank=2, alpha=3.0, targets=TARGETS), seed=0)
    moved(unet, method)
    trained, plain = output(unet), output(base)
    assert (trained - plain).abs().max() > 0.01
    name = "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"
    layer, own = unet.get_submodule(name), base.get_submodule(name)
    x = torch.randn(3, 16)
    with torch.no_grad():
        change = layer(x) - own(x)
        for factor in (0.5, 0, -1, 1):  # each from what was trained, not from the last one
            method.rescale(unet, factor)
            assert torch.allclose(output(unet), trained) == (factor == 1)
            assert torch.allclose(output(unet), plain, atol=1e-6) == (factor == 0)
            torch.testing.assert_close(layer(x), own(x) + factor * change, atol=1e-5, rtol=1e-4)


MORE = {  # settings with which weights are divided otherwise
    "lora": {},
    "dora": {},
    "lokr": {"factor": 2, "tucker": True},
    "lokr ": {"decompose_both": True},
    "lokr  ": {"factor": -1, "rank": 16},  # both matrices whole
    "loha": {"tucker": True},
    "loha ": {},
}


@pytest.mark.parametrize("kind", MORE)
def test_weights_at_a_share_of_the_update_are_those_in_between(unet, kind):
    """Against ``rescale``, which changes outputs or scales instead of weights, and against the merged weights."""
    settings = {"rank": 2, "alpha": 3.0, "targets": TARGETS} | MORE[kind]
    prepare(unet, method := KINDS[kind.strip()](**settings), seed=0)
    start = output(unet)  # the base's
    moved(unet, method)
    weights = method.trainable(unet)
    trained = {name: weight.detach().clone() for name, weight in weights.items()}
    for factor in (0.4, 0, 1):
        copy_into(weights, trained)
        method.rescale(unet, factor)
        expected, merged = output(unet), updates(unet, method)
        method.rescale(unet, 1)
        whole = updates(unet, method)
        scaled = method.scaled(unet, trained, factor, dict)
        assert list(scaled) == list(trained)
        copy_into(weights, scaled)
        torch.testing.assert_close(output(unet), expected, atol=2e-5, rtol=1e-4)
        for now, once in zip(updates(unet, method), whole, strict=True):
            torch.testing.assert_close(now, factor * once, atol=2e-5, rtol=1e-4)
    assert len(merged) > 2
    with method.switched_off(unet):
        assert torch.allclose(output(unet), start, atol=1e-6)
    assert not torch.allclose(output(unet), start, atol=1e-3)
    assert all(weight.requires_grad for weight in method.trainable(unet).values())
    assert method.trainable(unet).keys() == weights.keys()


def updates(unet, method) -> list[torch.Tensor]:
    """W - W_base of all modules with an adapter, as peft merges it."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    found = []
    for layer in unet.modules():
        if isinstance(layer, BaseTunerLayer):
            merged = copy.deepcopy(layer)
            merged.merge()
            own = layer.get_base_layer().weight.detach()
            found.append((merged.get_base_layer().weight.detach() - own).flatten(1))
    return found


@pytest.mark.parametrize("kind", MORE)
def test_the_norm_of_an_update_is_that_of_the_merged_weights(unet, kind):
    settings = {"rank": 2, "alpha": 3.0, "targets": TARGETS} | MORE[kind]
    prepare(unet, method := KINDS[kind.strip()](**settings), seed=0)
    moved(unet, method)
    found = list(method.squared_norms(unet))
    for (norm, parts), update in zip(found, updates(unet, method), strict=True):
        torch.testing.assert_close(norm, update.square().sum(), atol=1e-4, rtol=1e-3)
        assert all(gradient is not None for gradient in torch.autograd.grad(norm, parts))
    every = {id(weight) for _, parts in found for weight in parts}
    assert every == {id(weight) for weight in method.trainable(unet).values()}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["dora", "lokr", "loha"])
def test_a_training_resumes_and_exports_and_another_starts_with_it(
    make_config, run_training, kind, capsys
):
    settings = {
        "method": kind,
        "method.rank": 2,
        "method.alpha": 3.0,
        "method.targets": TARGETS,
        "optim.lr": 0.02,
        **OTHER[kind],
    }
    config = make_config("first", **settings)
    run_training(config)
    reader = "diffusers" if kind == "dora" else "peft"
    assert f"(loaded again by {reader} and by kohya's rules: largest" in capsys.readouterr().out
    whole = losses(config), digests(config)
    shutil.rmtree(config.folder)
    config.train.samples = 16
    run_training(config)
    config.train.samples = 32
    run_training(config)
    assert "resuming after 16 samples" in capsys.readouterr().out
    assert (losses(config), digests(config)) == whole

    run = load_run(config.run.folder)
    assert run.config.method == config.method
    last = list_checkpoints(config.folder)[-1]
    unet = run.unet_at(last)
    trained = output(unet)
    prepare(plain := load_model(config.model).unet, config.method, config.train.seed)
    assert set(load_file(last.path / "weights.safetensors")) == set(config.method.trainable(plain))
    assert not torch.allclose(trained, output(plain), atol=1e-3)
    assert torch.equal(output(run.unet_at(None)), output(plain))

    second = make_config("second", **settings, **{"data.run": "first", "method.init": "first"})
    second.optim.lr = 1e-9
    run_training(second)
    opened = load_run(second.run.folder)
    theirs = config.method.load(config.model, config.folder / "export").unet.eval()
    scope: dict = {}
    exec("\n".join(config.method.python(config.model.path, str(config.folder / "export"))), scope)
    assert torch.equal(output(scope["pipe"].unet.eval()), output(theirs))
    assert torch.allclose(output(opened.unet_at(opened.start())), output(theirs), atol=1e-6)

    for change, says in (
        (
            {"method.alpha": 1.0},
            rf"is a {METHODS[kind].noun} of rank 2, alpha 3.*method\.alpha=3\b",
        ),
        ({"method.rank": 1}, r"type method\.rank=2 "),
        ({"method.targets": ["to_q"]}, r"type 'method\.targets=\[conv1,"),
        *([({"method.tucker": False}, r"type .*method\.tucker=true")] if kind != "dora" else []),
        *([({"method.factor": -1}, r"type .*method\.factor=2 ")] if kind == "lokr" else []),
    ):
        third = make_config(
            "third", **{**settings, "data.run": "first", "method.init": "first", **change}
        )
        with pytest.raises(UserError, match=says.replace(", alpha", ",? (and )?alpha")):
            doctor.examine(third, read_manifest(third.curate_dir))
    other = make_config("third", method="lora", **{"data.run": "first", "method.init": "first"})
    with pytest.raises(UserError, match=f"is an export of method={kind}, .*; type method={kind}"):
        doctor.examine(other, read_manifest(other.curate_dir))


def test_settings_of_a_kind_are_checked():
    with initialize_config_dir(str(PACKAGES / "conf"), version_base="1.3"):
        for typed in (["method=lokr", "method.factor=0"], ["method=lokr", "method.factor=-2"]):
            with pytest.raises(UserError, match=r"method\.factor=.*accepted: -1, or > 0"):
                to_dataclass(compose("train", typed), TrainConfig)
        for kind in KINDS:
            with pytest.raises(UserError, match=r"method\.alpha=0"):
                to_dataclass(compose("train", [f"method={kind}", "method.alpha=0"]), TrainConfig)
        assert to_dataclass(compose("train", ["method=lokr"]), TrainConfig).method.rank == 8


def test_a_lokr_of_foreign_settings_is_refused(make_config, tmp_path):
    """Whole files of peft that no training here wrote."""
    config = make_config("first", method="lokr")
    folder = tmp_path / "foreign"
    folder.mkdir()
    shutil.copy(
        PACKAGES / "finetune/starter_ldm/unet/diffusion_pytorch_model.safetensors",
        folder / "adapter_model.safetensors",
    )
    (folder / "adapter_config.json").write_text('{"peft_type": "LOKR", "r": 4}')
    config.method.init = str(folder)
    with pytest.raises(UserError, match="does not say its rank and alpha"):
        doctor.examine(config, read_manifest(config.curate_dir))
