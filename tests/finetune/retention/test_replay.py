"""Replayed pictures and what the loss holds on to: which samples, which targets, resumed exactly, refused in vain."""

from __future__ import annotations

import shutil
from typing import Any

import pytest
import torch

from curate.run.manifest import read_manifest
from curate.run.schema import UserError
from finetune import doctor
from finetune.conditioning import Conditioning
from finetune.config.retention import RegulariseConfig, ReplayConfig
from finetune.data import Batch
from finetune.methods import prepare
from finetune.methods.full import Full
from finetune.methods.lora import Lora
from finetune.models import load_model
from finetune.models.config import ModelConfig
from finetune.retention import prompts
from finetune.retention.regularise import Regulariser
from finetune.retention.replay import ReplayBatches
from tests.finetune.conftest import digests, losses
from tests.finetune.test_data import split


class Pictures:
    """Three of them, whose latents are negative."""

    keys = ("a", "b", "c")

    def __len__(self):
        return 3

    def latents_of(self, indices):
        return -1.0 - indices.float().reshape(-1, 1, 1, 1)

    def conditioning_of(self, indices, which, dropped):
        return Conditioning({"hidden": -1.0 - indices.float().reshape(-1, 1, 1)}).drop(
            dropped, Conditioning({"hidden": torch.full((1, 1, 1), -100.0)})
        )


def batches(**changes) -> ReplayBatches:
    options = {"batch_size": 8, "caption_dropout": 0.0, "timesteps": 1000, "seed": 7}
    return ReplayBatches(split(), pictures=Pictures(), replayed=3, **options | changes)  # type: ignore[arg-type]


def test_a_share_of_each_batch_is_replayed_and_the_rest_is_the_plan_of_the_data():
    made, places, new, old = batches(), [], [], []
    for number in range(12):
        batch = made(number)
        mask = batch.replayed
        assert mask is not None
        assert mask.sum() == 3
        latents = batch.latents.flatten()
        assert ((latents < 0) == mask).all()
        known = [-1 - "abc".index(k) if k in "abc" else int(k[1:]) for k in batch.keys]
        assert known == latents.tolist()
        hidden = batch.conditioning["hidden"].flatten()
        assert torch.equal(hidden[mask], latents[mask])
        assert torch.equal((hidden[~mask] / 100).floor(), latents[~mask])
        places += mask.nonzero().flatten().tolist()
        new += latents[~mask].tolist()
        old += latents[mask].tolist()
    assert [sorted(new[i : i + 10]) for i in range(0, 60, 10)] == [list(map(float, range(10)))] * 6
    assert [sorted(old[i : i + 3]) for i in range(0, 36, 3)] == [[-3.0, -2.0, -1.0]] * 12
    assert set(places) == set(range(8)), "a stratum of the timesteps is a place in the batch"


def test_processes_share_each_batch():
    for number in range(6):
        whole = batches(caption_dropout=0.3)(number)
        for rank in range(2):
            share = batches(caption_dropout=0.3, rank=rank, world_size=2)(number)
            for name in ("latents", "noise", "timesteps", "replayed"):
                assert torch.equal(getattr(share, name), getattr(whole, name)[rank::2])
            assert torch.equal(share.conditioning["hidden"], whole.conditioning["hidden"][rank::2])
            assert share.keys == whole.keys[rank::2]


def replaying(make_config, tmp_path, method: str, **changes):
    file = tmp_path / "prompts.txt"
    file.write_text("a cat\nred dog\n")
    found = {"replay.share": 0.5, "replay.prompts": str(file), "replay.pictures": 3}
    return make_config(method=method, **{"optim.lr": 0.01, **found, **changes})


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize("method", ["full", "loha"])
def test_a_training_with_all_of_it_resumes_exactly(
    make_config, run_training, tmp_path, method, capsys
):
    cures = {"regularise.teacher": 2.0, "regularise.weight_l2": 0.01}
    config = replaying(make_config, tmp_path, method, **cures)
    run_training(config)
    said = capsys.readouterr().out
    assert "replay  2 of each batch's 4 samples, of 3 pictures that the base drew" in said
    assert "retain  0.01 × the squared norm of the update is added to the loss; " in said
    assert "replayed samples' loss is 2 × the squared difference from the base's prediction" in said
    assert len(list((config.folder / "replay").glob("*.png"))) == 3
    whole = losses(config), digests(config)
    shutil.rmtree(config.folder)
    config.train.samples = 16
    run_training(config)
    config.train.samples = 32
    run_training(config)
    assert "resuming after 16 samples" in capsys.readouterr().out
    assert (losses(config), digests(config)) == whole

    for plain in (
        {"regularise": RegulariseConfig()},
        {"regularise": RegulariseConfig(teacher=2.0)},
        {"replay": ReplayConfig(share=0.5, prompts=config.replay.prompts, pictures=4)},
        {"replay": ReplayConfig(), "regularise": RegulariseConfig()},
    ):
        config.train.samples = 48
        kept = {name: getattr(config, name) for name in plain}
        for name, value in plain.items():
            setattr(config, name, value)
        with pytest.raises(UserError, match=r"was started with (replay|regularise)\."):
            doctor.examine(config, read_manifest(config.curate_dir))
        for name, value in kept.items():
            setattr(config, name, value)


def test_only_what_changes_losses_is_noted(make_config):
    """The scale of an export does not; what is replayed does, by its prompts, wherever they are."""
    config = make_config()
    manifest = read_manifest(config.curate_dir)
    known = doctor.identity(config, manifest)
    assert not [key for key in known if key.startswith("export")]
    assert (known["replay.share"], known["replay.pictures"], known["replay.prompts"]) == (
        0,
        None,
        None,
    )
    replaying = doctor.identity(make_config(**{"replay.share": 0.5}), manifest)
    assert replaying["replay.pictures"]
    assert len(replaying["replay.prompts"]) == 64


@pytest.fixture
def model(pipeline_dir):
    return load_model(ModelConfig(path=str(pipeline_dir), resolution=16))


METHODS = {"full": Full(), "lora": Lora(rank=2)}


def moved(weights) -> None:
    generator = torch.Generator().manual_seed(3)
    for weight in weights.values():
        weight.data.add_(0.1 * torch.randn(weight.shape, generator=generator))


@pytest.mark.parametrize("kind", METHODS)
def test_the_base_teaches_replayed_samples_and_the_data_the_others(model, pipeline_dir, kind):
    base = load_model(ModelConfig(path=str(pipeline_dir), resolution=16))
    prepare(model.unet, method := METHODS[kind], seed=0)
    held = Regulariser(model, method, 0.0, 3.0)
    moved(method.trainable(model.unet))
    batch = Batch(
        keys=["a", "b", "c"],
        latents=torch.randn(3, 4, 4, 4),
        noise=torch.randn(3, 4, 4, 4),
        timesteps=torch.tensor([20, 400, 900]),
        conditioning=model.encode_captions(["a cat", "dog", ""]),
        replayed=torch.tensor([True, False, True]),
    )
    target, weights = held.target(batch), held.weights(batch)
    assert target is not None
    assert weights is not None
    assert weights.tolist() == [3.0, 1.0, 3.0]
    schedule = base.schedule
    noisy = schedule.add_noise(batch.latents, batch.noise, batch.timesteps)
    with torch.no_grad():
        taught = base.predict(base.unet.eval(), noisy, batch.timesteps, batch.conditioning)
        trained = model.predict(model.unet, noisy, batch.timesteps, batch.conditioning)
    plain = schedule.target(batch.latents, batch.noise, batch.timesteps)
    torch.testing.assert_close(target[[0, 2]], taught[[0, 2]], atol=1e-5, rtol=1e-4)
    assert torch.equal(target[1], plain[1])
    assert (trained - taught).abs().max() > 1e-2, "the student is another one"
    assert all(weight.requires_grad for weight in method.trainable(model.unet).values())


@pytest.mark.parametrize("kind", METHODS)
def test_the_gradient_is_that_of_the_squared_norm_of_the_update(model, kind):
    prepare(model.unet, method := METHODS[kind], seed=0)
    weights = method.trainable(model.unet)
    own = {name: weight.detach().clone() for name, weight in weights.items()}
    held = Regulariser(model, method, 0.7, 0.0)
    moved(weights)
    for weight in weights.values():
        weight.grad = torch.ones_like(weight)
    held.add_gradient(weights, factor=4.0)
    found = {name: weight.grad.clone() - 1 for name, weight in weights.items()}  # type: ignore[union-attr]
    for weight in weights.values():
        weight.grad = None
    if kind == "full":
        norm = sum((weight - own[name]).square().sum() for name, weight in weights.items())
    else:
        norm = 0
        for name in weights:
            if "lora_A" in name:
                b = weights[name.replace("lora_A", "lora_B")]
                norm = norm + (method.alpha / 2 * b @ weights[name]).square().sum()  # type: ignore[attr-defined]
    (4.0 * 0.7 * norm).backward()  # type: ignore[union-attr]
    for name, weight in weights.items():
        torch.testing.assert_close(found[name], weight.grad, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize(("weight_l2", "teacher", "copies"), [(0.1, 0, 1), (0, 2, 1), (0.1, 2, 2)])
def test_the_base_is_copied_once_for_each_that_reads_it(model, weight_l2, teacher, copies):
    prepare(model.unet, METHODS["full"], seed=0)
    one = 4 * sum(weight.numel() for weight in model.unet.parameters())
    assert Regulariser(model, METHODS["full"], weight_l2, teacher).copied_bytes == copies * one


def test_prompts_are_of_their_own(make_config, tmp_path):
    """What is held on to is neither what scales are chosen by nor what an evaluation judges by."""
    from evaluate.measure import retention_inputs

    config = make_config(**{"replay.share": 0.25, "export.scale": "auto"})
    replayed, chosen = prompts.replayed(config), prompts.for_scales(config)
    judged = prompts.lines(retention_inputs.BUILT_IN)
    assert len(set(replayed)) == len(replayed) == 140
    assert len(set(chosen)) == len(chosen) == 64
    assert not set(replayed) & set(chosen)
    assert not (set(replayed) | set(chosen)) & set(judged)
    assert prompts.replayed(make_config()) == prompts.for_scales(make_config()) == []


def test_settings_without_effect_are_refused(make_config):
    unread: list[tuple[str, Any]] = [("pictures", 4), ("prompts", "x.txt")]
    for name, value in unread:
        with pytest.raises(
            UserError, match=rf"replay\.{name}=.* has no effect with replay\.share=0"
        ):
            ReplayConfig(**{name: value})
    for share in (1.0, -0.1):
        with pytest.raises(UserError, match=r"replay\.share="):
            ReplayConfig(share=share)
    for share in (0.05, 0.95):
        with pytest.raises(UserError, match=r"of optim\.batch_size=4 is [04] samples.*=0\.25"):
            make_config(**{"replay.share": share})
    with pytest.raises(
        UserError, match=r"regularise\.teacher=1 has no effect with replay\.share=0"
    ):
        make_config(**{"regularise.teacher": 1.0})
    for setting in ("buckets.enabled", "objective.mask"):
        with pytest.raises(
            UserError, match=rf"replay\.share=0\.5 does not work with {setting}=true"
        ):
            make_config(**{setting: True, "replay.share": 0.5})
    cures: list[tuple[str, Any]] = [
        ("export.scale", 0.5), ("replay.share", 0.5), ("regularise.weight_l2", 0.1)
    ]  # fmt: skip
    for key, value in cures:
        with pytest.raises(UserError, match=rf"{key}=.* where the U-Net alone.*text_encoder=true"):
            make_config(method="lora", **{"method.text_encoder": True, key: value})
        with pytest.raises(UserError, match=rf"{key}=.* not with method=controlnet"):
            make_config(method="controlnet", **{key: value})
    with pytest.raises(UserError, match=r"regularise\.weight_l2"):
        RegulariseConfig(weight_l2=-1.0)
    config = make_config(**{"replay.share": 0.5, "replay.prompts": "nowhere.txt"})
    with pytest.raises(UserError, match=r"replay\.prompts=nowhere\.txt is not there"):
        doctor.examine(config, read_manifest(config.curate_dir))
