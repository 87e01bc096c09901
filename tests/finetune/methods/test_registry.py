"""What each method trains, how it starts, and that adding one takes no other change."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from omegaconf import MISSING
from safetensors.torch import load_file, save_file

from curate.run.schema import UserError, check, to_dataclass
from finetune.config import TrainConfig
from finetune.heldout import HeldoutGrid, grid_losses
from finetune.methods import METHODS, Method, prepare, register_method
from finetune.methods.full import Full
from finetune.methods.lora import Lora
from finetune.models import load_model, load_pipeline
from finetune.models.config import ModelConfig
from finetune.opened_run import load_run

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def unet(pipeline_dir):
    return load_model(ModelConfig(path=str(pipeline_dir), resolution=16)).unet


def test_full_trains_every_weight(unet):
    names = [name for name, _ in unet.named_parameters()]
    prepare(unet, Full(), seed=0)
    assert list(Full().trainable(unet)) == names


def test_lora_trains_its_own_fp32_weights_alone_and_starts_as_the_base(unet):
    inputs = (torch.ones(1, 4, 4, 4), torch.tensor([10]), torch.ones(1, 8, 16))
    with torch.no_grad():
        before = unet(*inputs).sample
        prepare(unet, Lora(rank=3), seed=0)
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
        prepare(unet, method := Lora(rank=2), seed)
        assert torch.equal(torch.get_rng_state(), state)
        starts.append(
            torch.cat([w.flatten() for n, w in method.trainable(unet).items() if "lora_A" in n])
        )
    assert torch.equal(starts[0], starts[1])
    assert not torch.equal(starts[0], starts[2])
    assert starts[0].std().item() == pytest.approx(
        1 / 2, rel=0.1
    )  # diffusers' "gaussian": N(0, 1/r)


def test_a_method_starts_from_a_frozen_network_and_a_seeded_state(unet):
    """So that a method has nothing to do about either."""
    drawn = []

    class Recording(Full):
        def attach(self, unet, pixels_per_latent):
            assert self.trainable(unet) == {}
            drawn.append(torch.rand(3).tolist())

    state = torch.get_rng_state()
    for seed in (5, 5, 6):
        prepare(unet.requires_grad_(True), Recording(), seed)
        assert torch.equal(torch.get_rng_state(), state)
        torch.rand(1)
        state = torch.get_rng_state()
    assert drawn[0] == drawn[1] != drawn[2]


def test_targets_that_do_not_exist_are_refused(unet):
    with pytest.raises(UserError, match=r"method\.targets=\['to_w'\]"):
        prepare(unet, Lora(targets=["to_w"]), seed=0)


def test_every_file_of_the_folder_is_a_method_that_a_configuration_chooses():
    files = {path.stem for path in (ROOT / "finetune" / "methods").glob("*.py")}
    modules = {kind.__module__ for kind in METHODS.values()}
    assert modules == {f"finetune.methods.{name}" for name in files - {"__init__", "interface"}}
    chosen = set()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        for path in (ROOT / "conf" / "method").glob("*.yaml"):
            cfg = compose("train", [f"method={path.stem}"])
            chosen.add(type(to_dataclass(cfg, TrainConfig).method))
    assert chosen == set(METHODS.values())


@pytest.fixture
def biases():
    """A method that is known to nobody but this test."""

    @dataclass
    class Biases(Method):
        name: str = "biases"
        suffix: str = ".bias"

        def __post_init__(self) -> None:
            check(self.suffix.startswith("."), "method.suffix", self.suffix, "a dot and a name")

        def attach(self, unet, pixels_per_latent):
            for name, weight in unet.named_parameters():
                weight.requires_grad_(name.endswith(self.suffix))

        def save(self, model, folder):
            folder.mkdir(parents=True)
            save_file(self.trainable(model.unet), folder / "biases.safetensors")

        def load(self, config, folder):
            pipeline = load_pipeline(config)
            stored = load_file(folder / "biases.safetensors")
            pipeline.unet.load_state_dict(stored, strict=False)
            return pipeline

    register_method(Biases)
    yield Biases
    del METHODS["biases"]
    del ConfigStore.instance().repo["method"]["_biases.yaml"]


def test_a_method_needs_a_name_that_is_not_taken():
    @dataclass
    class Nameless(Full):
        name: str = MISSING

    with pytest.raises(ValueError, match=r"Nameless\.name has no default"):
        register_method(Nameless)

    @dataclass
    class Another(Full):
        name: str = "lora"

    with pytest.raises(ValueError, match=r"Another\.name='lora' is the name of Lora already"):
        register_method(Another)
    assert METHODS["lora"] is Lora


def test_a_method_of_ones_own_is_trained_exported_and_opened(
    biases, make_config, run_training, capsys
):
    config = make_config(method="biases")
    run_training(config)
    assert "largest difference 0.0e+00" in capsys.readouterr().out
    base = load_model(config.model).unet
    exported = load_file(config.folder / "export" / "biases.safetensors")
    assert exported.keys() == {n for n, _ in base.named_parameters() if n.endswith(".bias")}
    assert any(not torch.equal(base.get_parameter(n), w) for n, w in exported.items())

    run = load_run(config.run.folder)
    assert run.config.method == biases()
    model, stored = run.model(), run.checkpoints()
    items, grid = run.items("val", 4), HeldoutGrid(bins=3, draws=2)
    with np.load(config.folder / "heldout.npz") as curve:
        again = grid_losses(model, run.unet_at(stored[-1]), items, grid, batch_size=8)
        np.testing.assert_allclose(again, curve["val"][-1], rtol=1e-5)
        assert not np.allclose(curve["val"][-1], curve["val"][0], rtol=1e-4)


def test_a_method_of_ones_own_is_configured_and_checked_like_the_others(biases):
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        cfg = compose("train", ["method=_biases", "method.suffix=.gamma"])
        assert to_dataclass(cfg, TrainConfig).method == biases(suffix=".gamma")
        cfg = compose("train", ["method=_biases", "method.text_encoder=true"])
        with pytest.raises(UserError, match="method=biases trains no text encoder; remove method"):
            to_dataclass(cfg, TrainConfig)
        cfg = compose("train", ["method=_biases", "method.suffix=gamma"])
        with pytest.raises(UserError, match=r"method\.suffix=gamma"):
            to_dataclass(cfg, TrainConfig)


def test_a_run_of_a_method_that_is_gone_is_not_opened(make_config, run_training):
    config = make_config()
    run_training(config)
    path = config.folder / "config.yaml"
    text = path.read_text().partition("# sha256")[0]
    path.write_text(text.replace("name: full", "name: gone"))
    with pytest.raises(UserError, match=r"method\.name=gone is not known; accepted: .*full"):
        load_run(config.run.folder)


def test_a_lora_is_scaled_between_base_and_trained(unet, pipeline_dir):
    base = load_model(ModelConfig(path=str(pipeline_dir), resolution=16)).unet
    prepare(unet, method := Lora(), seed=0)
    with torch.no_grad():
        for weight in method.trainable(unet).values():
            weight.normal_(generator=torch.Generator().manual_seed(weight.numel()))
    x, t, hidden = torch.randn(1, 4, 4, 4), torch.tensor([500]), torch.randn(1, 8, 16)

    def output(network):
        with torch.no_grad():
            return network(x, t, encoder_hidden_states=hidden).sample

    trained = output(unet)
    for factor in (0.5, 0, 1):  # each from what was trained, not from the last one
        method.rescale(unet, factor)
        scaled = output(unet)
        assert torch.allclose(scaled, trained) == (factor == 1)
        assert torch.allclose(scaled, output(base)) == (factor == 0)


def test_half_a_lora_is_half_its_update(unet):
    """W + factor * alpha / rank * B A, on one layer, by hand."""
    prepare(unet, method := Lora(rank=4, alpha=8), seed=0)
    layer = next(m for name, m in unet.named_modules() if name.endswith("to_q"))
    with torch.no_grad():
        layer.lora_B["default"].weight.normal_()
        method.rescale(unet, 0.25)
        x = torch.randn(3, layer.in_features)
        update = layer.lora_B["default"].weight @ layer.lora_A["default"].weight
        expected = layer.base_layer(x) + 0.25 * 8 / 4 * x @ update.T
        assert torch.allclose(layer(x), expected, atol=1e-5)


def test_what_has_no_scale_says_so(unet):
    assert {name: kind.scalable for name, kind in METHODS.items() if name in ("full", "lora")} == {
        "full": False,
        "lora": True,
    }
    with pytest.raises(UserError, match="method=full"):
        Full().rescale(unet, 0.5)
