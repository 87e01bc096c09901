"""Trained text encoders in exports: each file, read by published rules alone, gives the text that was trained."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from diffusers import DiffusionPipeline
from safetensors import safe_open
from safetensors.torch import load_file

from curate.run.schema import UserError
from finetune.export import ExportMismatch, export
from finetune.methods import METHODS, prepare_model
from finetune.methods.adapters import kohya
from finetune.methods.adapters.kohya_reader import apply
from finetune.models import load_model
from finetune.models.config import ModelConfig
from tests.finetune.conftest import save_pipeline
from tests.finetune.methods.test_layouts import EVERY, kohya_rules, other_rules
from tests.finetune.models.conftest import save_xl_pipeline

ATTENTION = ["q_proj", "k_proj", "v_proj", "out_proj"]
MLP = ["fc1", "fc2"]
KINDS = {
    "lora": ("lora", {"rank": 3, "alpha": 7.5}),
    "locon": (
        "lora",
        {"rank": 2, "alpha": 0.5, "targets": EVERY, "text_encoder_targets": ATTENTION + MLP},
    ),
    "dora": ("dora", {"rank": 3, "alpha": 1.0, "text_encoder_targets": ATTENTION + MLP}),
    "lokr": ("lokr", {"rank": 2, "alpha": 3.0, "factor": 2, "text_encoder_targets": MLP}),
    "loha": ("loha", {"rank": 2, "alpha": 3.0, "text_encoder_targets": ATTENTION}),
    "full": ("full", {}),
}
IDS = torch.tensor([[52, 3, 17, 5, 53, 53, 53, 53], [52, 9, 9, 1, 8, 2, 4, 53]])


@pytest.fixture(scope="module", params=["one text encoder", "two text encoders"])
def base(request, tmp_path_factory) -> ModelConfig:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    if request.param.startswith("one"):
        return ModelConfig(path=str(save_pipeline(folder)), resolution=16)
    return ModelConfig(path=str(save_xl_pipeline(folder)), resolution=32)


def method_of(kind: str, **changes):
    name, settings = KINDS[kind]
    return METHODS[name](**{"text_encoder": True, **settings, **changes})


def trained(config: ModelConfig, method, scale: float = 0.2):
    """A model all of whose trained weights moved away from where they started."""
    model = load_model(config)
    prepare_model(model, method, seed=0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in method.trained(model).values():
            weight.add_(scale * torch.randn(weight.shape, generator=generator))
    return model


@torch.no_grad()
def states(encoder) -> list[torch.Tensor]:
    """All that a U-Net may be given of a text encoder."""
    ids = IDS + (encoder.config.vocab_size - 54)  # of the same letters, between the same marks
    found = encoder.eval()(ids, output_hidden_states=True)
    pooled = [found["text_embeds"]] if "text_embeds" in found else []
    return [*found.hidden_states, *pooled]


def named(encoder) -> dict[str, torch.Tensor]:
    """Its weights by the names that files have for them."""
    return {
        name
        if name.startswith(("text_model.", "text_projection"))
        else f"text_model.{name}": w.clone()
        for name, w in encoder.state_dict().items()
    }


def merged_into(encoder, weights: dict[str, torch.Tensor]):
    flat = not any(name.startswith("text_model.") for name in encoder.state_dict())
    encoder.load_state_dict(
        {name.removeprefix("text_model.") if flat else name: w for name, w in weights.items()}
    )
    return encoder


@pytest.mark.quick_cases(3)
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "full"])
def test_both_files_hold_the_text_encoders_as_trained(base, tmp_path, kind):
    method = method_of(kind)
    model, folder = trained(base, method), tmp_path / "export"
    assert export(method, base, model, folder, name="mine") < 1e-4
    parts, file = list(model.text_encoders), folder / "mine.safetensors"
    prefixes = ["lora_te_"] if len(parts) == 1 else ["lora_te1_", "lora_te2_"]
    begins = {f"{stem.partition('_text_model_')[0]}_" for stem in _stems(file)}
    assert begins - {stem for stem in begins if stem.startswith("lora_unet")} == set(prefixes)
    for part, prefix in zip(parts, prefixes, strict=True):
        ours = states(model.text_encoders[part])
        plain = DiffusionPipeline.from_pretrained(base.path)
        weights, before = named(getattr(plain, part)), states(getattr(plain, part))
        moved = (ours[-1] - before[-1]).abs().max()
        assert moved > 0.02
        for merged in (
            kohya_rules(file, weights, prefix=prefix),
            other_rules(folder, weights, part),
        ):
            for mine, theirs in zip(
                ours, states(merged_into(getattr(plain, part), merged)), strict=True
            ):
                torch.testing.assert_close(theirs, mine, atol=5e-5, rtol=1e-4)
            changed = sum(not torch.equal(merged[name], w) for name, w in weights.items())
            layers = [m for m in model.text_encoders[part].modules() if hasattr(m, "base_layer")]
            assert changed == len(layers) > 0
        wrong = kohya_rules(file, weights, prefix=prefix, alpha=False)
        without = states(merged_into(getattr(plain, part), wrong))
        assert kind == "lokr" or (without[-1] - ours[-1]).abs().max() > 0.05 * moved


def _stems(file: Path) -> set[str]:
    return {name.partition(".")[0] for name in load_file(file)}


@pytest.mark.quick_cases(2)
@pytest.mark.parametrize("kind", ["lora", "locon", "dora"])
def test_diffusers_loads_text_encoders_with_their_own_alpha(base, tmp_path, kind):
    method = method_of(kind)
    model = trained(base, method)
    export(method, base, model, tmp_path / "export", name="mine")
    pipe = DiffusionPipeline.from_pretrained(base.path)
    pipe.load_lora_weights(str(tmp_path / "export"))
    with safe_open(tmp_path / "export" / "pytorch_lora_weights.safetensors", "pt") as stored:
        said, names = json.loads(stored.metadata()["lora_adapter_metadata"]), list(stored.keys())
    for part, encoder in model.text_encoders.items():
        for ours, theirs in zip(states(encoder), states(getattr(pipe, part)), strict=True):
            torch.testing.assert_close(theirs, ours, atol=2e-5, rtol=1e-4)
        assert (said[f"{part}.r"], said[f"{part}.lora_alpha"]) == (method.rank, method.alpha)
        assert said[f"{part}.base_model_name_or_path"] is None  # no folder of this machine
        assert any(name.startswith(f"{part}.text_model.encoder.layers.0.") for name in names)


def test_a_full_export_has_the_text_encoders(base, tmp_path):
    method = method_of("full")
    model = trained(base, method, scale=0.02)
    assert export(method, base, model, tmp_path / "export") < 1e-4
    pipe = DiffusionPipeline.from_pretrained(tmp_path / "export")
    plain = DiffusionPipeline.from_pretrained(base.path)
    for part, encoder in model.text_encoders.items():
        for ours, theirs in zip(states(encoder), states(getattr(pipe, part)), strict=True):
            assert torch.equal(theirs, ours)
        assert not torch.allclose(states(getattr(plain, part))[-1], states(encoder)[-1], atol=1e-2)


@pytest.mark.parametrize("forgets", ["a text encoder's module", "alpha"])
def test_a_file_whose_text_encoder_computes_something_else_is_refused(
    base, tmp_path, monkeypatch, forgets
):
    method, right = method_of("lora"), kohya.tensors

    def wrong(network, *prefix):
        found = right(network, *prefix)
        if not prefix:
            return found
        if forgets == "alpha":
            return {n: torch.tensor(3.0) if n.endswith("alpha") else t for n, t in found.items()}
        first = next(iter(found)).partition(".")[0]
        return {n: t for n, t in found.items() if not n.startswith(f"{first}.")}

    monkeypatch.setattr(kohya, "tensors", wrong)
    with pytest.raises(ExportMismatch, match="of its text encoder"):
        export(method, base, trained(base, method), tmp_path / "export", name="mine")
    assert not (tmp_path / "export").exists()


def test_a_module_that_the_pipeline_lacks_is_no_module_of_the_file(base, tmp_path):
    """The prefix of one text encoder is not that of one of two."""
    method = method_of("lora")
    export(method, base, trained(base, method), tmp_path / "export", name="mine")
    pipe = DiffusionPipeline.from_pretrained(base.path)
    pipe.text_encoder_2 = None if hasattr(pipe, "text_encoder_2") else pipe.text_encoder
    with pytest.raises((ValueError, AttributeError)):
        apply(pipe, tmp_path / "export" / "mine.safetensors")


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_what_the_u_net_is_given_nothing_of_is_not_trained(base, kind):
    method = method_of(kind)
    model = trained(base, method)
    names = [name for name in method.trained(model) if name.startswith("text_encoder.")]
    layers = {name.split(".layers.")[1].split(".")[0] for name in names if ".layers." in name}
    if len(model.text_encoders) == 1:
        assert layers == {"0"}
        assert kind == "lora" or any("final_layer_norm" in name for name in names)
    else:  # of two layers the first is read
        assert layers == {"0"}
        assert not any("final_layer_norm" in name for name in names)
        second = [name for name in method.trained(model) if name.startswith("text_encoder_2.")]
        assert {name.split(".layers.")[1][0] for name in second if ".layers." in name} == set("012")
        assert kind == "lora" or "text_encoder_2.text_projection.weight" in second


def test_targets_that_no_text_encoder_has_are_refused(base):
    with pytest.raises(UserError, match=r"method\.text_encoder_targets=\['to_q'\] does not fit"):
        prepare_model(load_model(base), method_of("lora", text_encoder_targets=["to_q"]), seed=0)
