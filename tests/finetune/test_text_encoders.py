"""Trainings of U-Net and text encoders: what is trained, measured, resumed, opened, exported and started from."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir

from curate.run.manifest import read_manifest
from curate.run.schema import UserError, to_dataclass
from finetune import doctor
from finetune.checkpoint import list_checkpoints
from finetune.config import TrainConfig
from finetune.drawing.config import SamplerConfig
from finetune.drawing.sampling import Prompt, Sampler
from finetune.export import export_checkpoint
from finetune.heldout import HeldoutGrid, grid_losses
from finetune.models.config import PACKAGES
from finetune.opened_run import load_run
from tests.finetune.conftest import command, digests, losses, start
from tests.finetune.models.conftest import save_xl_pipeline

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = {
    "lora": {"method.rank": 2, "method.alpha": 3.0},
    "locon": {
        "method": "lora",
        "method.rank": 2,
        "method.alpha": 3.0,
        "method.targets": ["to_q", "conv1"],
        "method.text_encoder_targets": ["q_proj", "fc1", "fc2"],
    },
    "dora": {"method.rank": 2, "method.alpha": 3.0, "optim.mixed_precision": "bf16"},
    "lokr": {"method.rank": 2, "method.alpha": 3.0, "method.factor": 2},
    "loha": {"method.rank": 2, "method.alpha": 3.0, "optim.gradient_checkpointing": True},
    "full": {},
}
TESTED = [  # the one of every day, and all others
    pytest.param(method, pipeline, marks=[] if (method, pipeline) in DAILY else pytest.mark.slow)
    for DAILY in [{("full", "two")}]
    for method in SETTINGS
    for pipeline in ("one", "two")
]


@pytest.fixture(scope="session")
def two_dir(tmp_path_factory) -> Path:
    return save_xl_pipeline(tmp_path_factory.mktemp("models") / "two")


@pytest.fixture
def make(make_config, two_dir):
    """A configuration that trains the text encoders of a pipeline of one, or of two."""

    def make(name: str, method: str, pipeline: str = "one", **changes) -> TrainConfig:
        if pipeline == "two":
            changes = {"model.path": str(two_dir), "model.resolution": 32, **changes}
        settings = {"method": method, **SETTINGS[method], "optim.lr": 0.01, **changes}
        settings = {"method.text_encoder": True, "optim.text_encoder_lr": 0.02, **settings}
        return make_config(name, **settings)

    return make


def text_weights(config: TrainConfig, step: int = -1) -> dict[str, torch.Tensor]:
    stored = list_checkpoints(config.folder)[step].weights(ema=False)
    return {name: weight for name, weight in stored.items() if name.startswith("text_encoder")}


@torch.no_grad()
def hidden(model) -> torch.Tensor:
    """What the U-Net is given of a caption."""
    return model.encode_tokens(model.tokens(["red bar"]))["hidden"].clone()


@pytest.mark.parametrize(("method", "pipeline"), TESTED)
def test_a_training_of_both_is_measured_resumed_opened_exported_and_started_from(
    make, run_training, capsys, method, pipeline
):
    config = make("first", method, pipeline)
    run_training(config)
    said = capsys.readouterr().out
    assert "text_encoder's" in said
    assert "; lr 0.01 and 0.02" in said
    parts = {"text_encoder", "text_encoder_2"} if pipeline == "two" else {"text_encoder"}
    before, after = text_weights(config, 0), text_weights(config)
    assert {name.partition(".")[0] for name in after} == parts
    assert all(".text_model." in name or "text_projection" in name for name in after)
    assert any(not torch.equal(before[name], weight) for name, weight in after.items())
    rates = [(each["lr"], each["text_encoder_lr"]) for each in losses(config) if "lr" in each]
    assert set(rates) == {(0.01, 0.02)}

    last, trained = _check_opened(config)
    _check_exported(config, last, trained)
    _check_resumed(config, run_training)
    second = make("second", method, pipeline, **{"data.run": "first", "method.init": "first"})
    second.optim.lr = second.optim.text_encoder_lr = 1e-9
    run_training(second)
    opened = load_run(second.run.folder)
    opened.unet_at(opened.start())
    started = hidden(opened.model())
    run = load_run(config.run.folder)
    run.unet_at(run.exported())
    torch.testing.assert_close(started, hidden(run.model()), atol=1e-5, rtol=1e-4)


def _check_opened(config: TrainConfig):
    """The held-out losses of a checkpoint are those of training, and the base's are the base's; returns the last."""
    run = load_run(config.run.folder)
    model, items, grid = run.model(), run.items("val", 4), HeldoutGrid(bins=3, draws=2)
    assert "hidden" not in items.conditioning.tensors
    base, last = hidden(model), run.checkpoints()[-1]
    unet = run.unet_at(last)
    trained = hidden(model)
    assert (trained - base).abs().max() > 1e-3
    mixed = config.optim.mixed_precision is not None
    with np.load(config.folder / "heldout.npz") as curve:
        again = grid_losses(model, unet, items, grid, batch_size=8)
        np.testing.assert_allclose(again, curve["val"][-1], rtol=0.05 if mixed else 1e-4)
        run.unet_at(None)
        assert torch.equal(hidden(model), base)  # the base's own again
        first = grid_losses(model, run.unet_at(None), items, grid, batch_size=8)
        np.testing.assert_allclose(first, curve["val"][0], rtol=0.05 if mixed else 1e-4)
    return last, trained


def _check_exported(config: TrainConfig, last, trained: torch.Tensor) -> None:
    """What is exported is the checkpoint, its text encoders too."""
    _, difference = export_checkpoint(load_run(config.run.folder), last)
    assert difference < 1e-4
    folder = config.folder / f"export-{last.path.name}"
    pipe = config.method.load(config.model, folder)
    other = load_run(config.run.folder).model()
    for part in other.text_encoders:
        setattr(other, part, getattr(pipe, part).eval())
    torch.testing.assert_close(hidden(other), trained, atol=1e-4, rtol=1e-3)
    shutil.rmtree(folder)


def _check_resumed(config: TrainConfig, run_training) -> None:
    """Cut in the middle, it goes on to the same bytes."""
    whole = losses(config), digests(config)
    export_of = {name for name in whole[1] if name.startswith("export/")}
    assert export_of
    shutil.rmtree(config.folder)
    config.train.samples = 16
    run_training(config)
    config.train.samples = 32
    run_training(config)
    assert (losses(config), digests(config)) == whole


def test_token_ids_of_a_frozen_text_encoder_train_what_hidden_states_do(
    make_config, run_training, capsys
):
    """But for the rounding to fp16, in which hidden states are cached; in the same memory."""
    kept = make_config("hidden", method="lora", **{"optim.lr": 0.01})
    live = make_config("tokens", method="lora", **{"optim.lr": 0.01, "cache.captions": "tokens"})
    memory = []
    for config in (kept, live):
        run_training(config)
        lines = capsys.readouterr().out.splitlines()
        memory += [line for line in lines if line.startswith("memory ")]
    assert memory[0] == memory[1]
    assert "about" in memory[0]
    assert (kept.captions, live.captions) == ("hidden", "tokens")
    for ours, theirs in zip(losses(live), losses(kept), strict=True):
        assert ours == pytest.approx(theirs, rel=2e-3)
    folders = list(Path(kept.run.root, ".cache", "conditioning").iterdir())
    assert len(folders) == 2  # one form is not taken for the other


@pytest.mark.slow
@pytest.mark.parametrize("method", ["lora", "full"])
def test_two_processes_train_both_as_one_does(make, run_training, tmp_path, method):
    one = make("one", method, "two", **{"optim.gradient_accumulation": 2})
    two = make("two", method, "two")
    run_training(one)
    typed = ["method.text_encoder=true", "optim.text_encoder_lr=0.02"]
    typed += ["method.rank=2", "method.alpha=3"] if method == "lora" else []
    port = {"lora": "29573", "full": "29574"}[method]
    launch = ["-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", port]
    process = start([*launch, str(ROOT / "finetune" / "train.py"), *command(two, *typed)], tmp_path)
    output = process.communicate(timeout=600)[0]
    assert process.returncode == 0, output
    for ours, theirs in zip(losses(one), losses(two), strict=True):
        assert theirs == pytest.approx(ours, rel=1e-3)
    theirs = text_weights(two)
    for name, weight in text_weights(one).items():
        # A bias of the keys changes no attention: its gradient is rounding alone, whose sign AdamW follows.
        if not name.endswith("k_proj.bias"):  # each update moves a weight by up to 0.02
            torch.testing.assert_close(theirs[name], weight, atol=1e-3, rtol=1e-2)


def test_pictures_are_drawn_with_the_text_encoder_of_the_checkpoint(make, run_training):
    config = make("drawn", "lora", **{"samples.captions": 1, "samples.steps": 2})
    config.samples.prompts = ["blue"]
    run_training(config)
    run = load_run(config.run.folder)
    model, steps = run.model(), (0, *(stored.step for stored in run.checkpoints()))
    sampler = Sampler(model, SamplerConfig("dpm_solver++", 2, 5.0), 0, 1)
    prompt, drawn = Prompt("prompt-1", "blue"), {}
    for step, stored in zip(steps, (None, *run.checkpoints()), strict=True):
        unet = run.unet_at(stored)
        [drawn[step]] = sampler.draw(unet, [prompt])
        stored_one = np.asarray(_open(config, step), int)
        assert abs(stored_one - np.asarray(drawn[step], int)).max() <= 1
    unet, last = run.unet_at(run.checkpoints()[-1]), np.asarray(drawn[steps[-1]], int)
    model.text_encoder = load_run(config.run.folder).model().text_encoders["text_encoder"]
    [wrong] = sampler.draw(unet, [prompt])
    assert abs(np.asarray(wrong, int) - last).max() > 1


def _open(config: TrainConfig, step: int):
    from PIL import Image

    return Image.open(config.folder / "samples" / f"step-{step:08d}" / "prompt-1.png")


def test_settings_that_contradict_each_other_are_refused():
    with initialize_config_dir(str(PACKAGES / "conf"), version_base="1.3"):

        def settings(*typed: str) -> TrainConfig:
            return to_dataclass(compose("train", list(typed)), TrainConfig)

        assert settings("method=lora").captions == "hidden"
        assert settings("method=lora", "cache.captions=tokens").captions == "tokens"
        assert settings("method=lora", "method.text_encoder=true").captions == "tokens"
        chosen = settings("method=locon", "method.text_encoder=true").method
        assert chosen.text_encoder_targets[-2:] == ["fc1", "fc2"]
        with pytest.raises(
            UserError, match=r"cache\.captions=hidden .*type cache\.captions=tokens"
        ):
            settings("method=full", "method.text_encoder=true", "cache.captions=hidden")
        with pytest.raises(UserError, match=r"text_encoder_lr=1e-05 has no effect without method"):
            settings("method=lora", "optim.text_encoder_lr=1e-5")
        with pytest.raises(UserError, match=r"optim\.text_encoder_lr=0.*null or > 0"):
            settings("method=lora", "method.text_encoder=true", "optim.text_encoder_lr=0")
        with pytest.raises(UserError, match=r"cache\.captions=text.*auto, hidden, tokens"):
            settings("method=lora", "cache.captions=text")


@pytest.mark.parametrize("method", ["lora", pytest.param("lokr", marks=pytest.mark.slow), "full"])
def test_a_start_has_the_networks_of_the_training(make, make_config, run_training, method):
    first = make("first", method, **{"heldout.items": 0, "train.samples": 4})
    run_training(first)
    plain = {**SETTINGS[method], "method": method, "heldout.items": 0, "train.samples": 4}
    second = make_config("second", **plain, **{"data.run": "first", "method.init": "first"})
    if method == "full":
        with pytest.raises(UserError, match=r"another text encoder .* method\.text_encoder=true"):
            run_training(second)
        return
    with pytest.raises(UserError, match=r"trained the text encoder too.*method\.text_encoder=true"):
        doctor.examine(second, read_manifest(second.curate_dir))
    alone = make_config("alone", **plain)
    run_training(alone)
    third = make("third", method, **{"data.run": "first", "method.init": "alone"})
    with pytest.raises(UserError, match="holds no text encoder"):
        doctor.examine(third, read_manifest(third.curate_dir))
    other = make("other", method, **{"data.run": "first", "method.init": "first"})
    other.method.text_encoder_targets = ["q_proj"]
    with pytest.raises(UserError, match=r"type 'method\.text_encoder_targets=\[k_proj,"):
        doctor.examine(other, read_manifest(other.curate_dir))


def test_a_run_is_not_gone_on_with_other_networks(make, run_training):
    config = make("one", "lora", **{"heldout.items": 0, "train.samples": 8, "checkpoint.every": 4})
    run_training(config)
    config.method.text_encoder, config.optim.text_encoder_lr = False, None
    config.train.samples = 12
    with pytest.raises(UserError, match=r"method\.text_encoder=True, not False"):
        run_training(config)
