"""Exports read by plain diffusers, in ways that would show a wrong scale, and refused when wrong."""

from __future__ import annotations

import hashlib
import json

import diffusers.training_utils
import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors import safe_open

from curate.run.schema import UserError
from finetune import export as command
from finetune.checkpoint import list_checkpoints
from finetune.export import ExportMismatch, export, trigger_of
from finetune.methods import prepare
from finetune.methods.full import Full
from finetune.methods.lora import Lora
from finetune.models import load_model
from finetune.models.config import ModelConfig
from finetune.opened_run import load_run

INPUTS = {"sample": torch.ones(1, 4, 4, 4), "timestep": torch.tensor([300])}


@pytest.fixture
def config(pipeline_dir):
    return ModelConfig(path=str(pipeline_dir), resolution=16)


def trained(config, method, scale: float = 0.3):
    """A model whose trainable weights moved away from where they started."""
    model = load_model(config)
    prepare(model.unet, method, seed=0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in method.trainable(model.unet).values():
            weight.add_(scale * torch.randn(weight.shape, generator=generator))
    return model


@torch.no_grad()
def output(unet, conditioning):
    return unet(**INPUTS, encoder_hidden_states=conditioning["hidden"]).sample


def test_lora_of_attention_and_convolutions_together(config, tmp_path):
    """In diffusers' older names, its loader drops the attention part of such a file."""
    method = Lora(targets=["to_q", "to_out.0", "conv1", "proj_in", "ff.net.2"])
    model = trained(config, method, scale=0.1)
    assert export(method, config, model, tmp_path / "export") < 1e-4
    with safe_open(tmp_path / "export" / "pytorch_lora_weights.safetensors", "pt") as stored:
        names = list(stored.keys())
    for target in method.targets:
        assert any(f".{target}." in name for name in names)


@pytest.mark.parametrize(
    ("rank", "alpha"),
    [
        *(pytest.param(*each, marks=pytest.mark.slow) for each in ((4, 4.0), (4, 1.0), (3, 0.5))),
        (2, 16.0),
    ],
)
def test_lora_loads_in_plain_diffusers_with_its_own_alpha(config, tmp_path, rank, alpha):
    method = Lora(rank=rank, alpha=alpha)
    model = trained(config, method)
    difference = export(method, config, model, tmp_path / "export")
    assert difference < 1e-5
    pipe = StableDiffusionPipeline.from_pretrained(config.path)
    text = model.encode_captions(["red bar"])
    base = output(pipe.unet, text)
    pipe.load_lora_weights(str(tmp_path / "export"))
    ours = output(model.unet, text)
    torch.testing.assert_close(output(pipe.unet, text), ours, atol=1e-5, rtol=1e-5)
    assert (ours - base).abs().max() > 0.01  # the comparison above could otherwise not fail
    file = tmp_path / "export" / "pytorch_lora_weights.safetensors"
    with safe_open(file, framework="pt") as stored:
        adapter = json.loads(stored.metadata()["lora_adapter_metadata"])
    assert (adapter["unet.r"], adapter["unet.lora_alpha"]) == (rank, alpha)


def test_feed_forward_targets_are_exported_too(config, tmp_path):
    method = Lora(rank=2, alpha=3.0, targets=["to_q", "ff.net.2"])
    model = trained(config, method)
    assert any("ff.net.2" in name for name in method.trainable(model.unet))
    assert export(method, config, model, tmp_path / "export") < 1e-5


def test_the_full_export_is_a_pipeline_of_its_own(config, tmp_path):
    model = trained(config, Full(), scale=0.02)
    assert export(Full(), config, model, tmp_path / "export") < 1e-5
    pipe = StableDiffusionPipeline.from_pretrained(tmp_path / "export")
    text = model.encode_captions(["red bar"])
    torch.testing.assert_close(output(pipe.unet, text), output(model.unet, text))
    assert pipe.scheduler.config.prediction_type == "v_prediction"
    assert pipe.vae.config.scaling_factor == 1.5
    assert not [p for p in (tmp_path / "export").rglob("*") if p.suffix in (".bin", ".pt", ".ckpt")]


def test_the_same_weights_give_the_same_bytes(config, tmp_path):
    method = Lora(rank=2)
    digests = set()
    for name in "abc":
        export(method, config, trained(config, method), tmp_path / name)
        file = tmp_path / name / "pytorch_lora_weights.safetensors"
        digests.add(hashlib.sha256(file.read_bytes()).hexdigest())
    assert len(digests) == 1


def test_a_wrong_export_is_refused_and_the_old_one_stays(config, tmp_path, monkeypatch):
    method = Lora(rank=4, alpha=1.0)
    export(method, config, trained(config, method), tmp_path / "export")
    before = (tmp_path / "export" / "pytorch_lora_weights.safetensors").read_bytes()
    real = diffusers.training_utils._collate_lora_metadata

    def alpha_as_rank(modules):  # what converters that forget alpha do
        metadata = real(modules)
        metadata["unet_lora_adapter_metadata"]["lora_alpha"] = 4.0
        return metadata

    monkeypatch.setattr(diffusers.training_utils, "_collate_lora_metadata", alpha_as_rank)
    with pytest.raises(ExportMismatch, match="computes something else"):
        export(method, config, trained(config, method, scale=0.5), tmp_path / "export")
    assert (tmp_path / "export" / "pytorch_lora_weights.safetensors").read_bytes() == before


@pytest.mark.parametrize("method", ["lora", "full"])
def test_any_checkpoint_is_exported_by_its_step(
    make_config, run_training, monkeypatch, capsys, method
):
    """Plain diffusers loads it and computes what the checkpoint's own weights compute."""
    config = make_config(method=method, **{"optim.lr": 0.05})
    run_training(config)
    best = {path: path.read_bytes() for path in (config.folder / "export").rglob("*.safetensors")}
    run = load_run(config.run.folder)
    text = run.model().encode_captions(["red bar"])
    outputs = []
    for stored, step in zip(list_checkpoints(config.folder), ("step=4", "step=last"), strict=True):
        monkeypatch.setattr("sys.argv", ["export", str(config.run.folder), step])
        command.main()
        target = config.folder / f"export-{stored.path.name}"
        assert f"{target} (loaded again by diffusers" in capsys.readouterr().out
        if method == "full":
            unet = StableDiffusionPipeline.from_pretrained(target).unet
        else:
            pipe = StableDiffusionPipeline.from_pretrained(config.model.path)
            pipe.load_lora_weights(str(target))
            unet = pipe.unet
        outputs.append(output(unet, text))
        torch.testing.assert_close(outputs[-1], output(run.unet_at(stored), text))
    assert not torch.equal(*outputs)
    assert all(path.read_bytes() == content for path, content in best.items())


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["step=250"], r"no checkpoint of step 250; type step= and one of: 8, best, last"),
        (["step=9"], r"no checkpoint of step 9"),
        ([], r"no checkpoint is named; type step= and one of: 8, best, last\. Such as step=8"),
        (["250"], r"250 is no checkpoint; type step="),
    ],
)
def test_a_checkpoint_that_is_not_there_lists_those_that_are(
    tmp_path, monkeypatch, arguments, says
):
    checkpoints = tmp_path / "mine" / "finetune" / "checkpoints"
    (checkpoints / "step-00000008").mkdir(parents=True)
    monkeypatch.setattr("sys.argv", ["export", str(tmp_path / "mine"), *arguments])
    with pytest.raises(UserError, match=says):
        command.main()


def test_another_base_model_than_the_trained_one_is_refused(make_config, run_training):
    config = make_config(method="lora")
    run_training(config)
    run, stored = load_run(config.run.folder), list_checkpoints(config.folder)[0]
    with torch.no_grad():
        run.model().unet.conv_in.weight.add_(1)
    with pytest.raises(UserError, match="started from other weights of the base model"):
        command.export_checkpoint(run, stored)
    assert not (config.folder / "export-step-00000004").exists()


def test_the_trigger_word_is_that_of_the_curations(make_config):
    config = make_config()
    assert trigger_of(config) == ""
    path = config.curate_dir / "config.yaml"
    path.write_text("dataset: {name: mine, trigger: ohwx}\n")
    assert trigger_of(config) == "ohwx"
