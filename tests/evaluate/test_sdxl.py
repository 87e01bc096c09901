"""A model of SDXL's shape from shards to verdict: trained, cut, resumed, exported, judged and drawn from."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionXLPipeline
from hydra import compose, initialize_config_dir
from PIL import Image
from torch._subclasses.fake_tensor import FakeTensor

from curate.clip.config import ClipConfig
from curate.run.overrides import CONF, prepare
from curate.run.schema import to_dataclass
from evaluate import results, run, sample
from evaluate.config import EvaluateConfig, GateConfig, GateRule
from evaluate.measure_config import (
    CopyingConfig,
    DistributionConfig,
    GridConfig,
    ReconsiderConfig,
    RetentionConfig,
    RunConfig,
    SamplesConfig,
)
from evaluate.sample_config import SampleConfig
from finetune.drawing.config import SamplerConfig
from finetune.models import sdxl
from finetune.opened_run import load_run
from tests.finetune import conftest
from tests.finetune.conftest import curate, digests, losses, picture
from tests.finetune.models.conftest import xl_dir

__all__ = ["xl_dir"]


class Killed(BaseException):
    """Stands in for the power cut: no ``except Exception`` sees it."""


def oblong(seed: int) -> Image.Image:
    """A picture of one of three shapes."""
    return picture(seed, 64).resize([(48, 36), (36, 60), (40, 40)][seed % 3])


@pytest.mark.slow  # test_every_method has another of this family
def test_sdxl_from_shards_to_verdict(
    make_config, run_training, xl_dir, clip_dir, monkeypatch, tmp_path, capsys
):
    monkeypatch.setattr(conftest, "picture", oblong)
    root = Path(make_config("unused").run.root)
    curate(root / "xl" / "curate", {"train": 34, "val": 34}, max_samples=40)
    config = make_config("xl", method="lora", **{"optim.lr": 0.02, "train.caption_dropout": 0.3})
    config.model.path, config.model.resolution = str(xl_dir), 32

    given: list[torch.Tensor] = []
    real_predict = sdxl.StableDiffusionXL.predict

    def predict(self, network, noisy, timesteps, conditioning):
        if torch.is_grad_enabled() and not isinstance(noisy, FakeTensor):  # of the memory forecast
            given.append(conditioning["time_ids"])
        return real_predict(self, network, noisy, timesteps, conditioning)

    monkeypatch.setattr(sdxl.StableDiffusionXL, "predict", predict)
    run_training(config)
    assert "largest difference" in capsys.readouterr().out
    sizes = {tuple(row) for row in torch.cat(given).int().tolist()}
    assert sizes == {(36, 48, 0, 5, 32, 32), (60, 36, 11, 0, 32, 32), (40, 40, 0, 0, 32, 32)}

    # The same run, cut in the middle of its second checkpoint.
    whole = losses(config), digests(config)
    config.folder.rename(tmp_path / "whole")
    real_fsync = os.fsync

    def dying(descriptor):
        if list(config.folder.glob("checkpoints/.step-00000008*")):
            raise Killed
        real_fsync(descriptor)

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", dying)
        with pytest.raises(Killed):
            run_training(config)
    run_training(config)
    assert "resuming after 16 samples" in capsys.readouterr().out
    assert (losses(config), digests(config)) == whole

    lines: list[str] = []
    rule = GateRule(metric="heldout_change", op="<", threshold=0.0, use="ci_high")
    judged = EvaluateConfig(
        run=RunConfig(config.run.root, "xl"),
        clip=ClipConfig(name=f"local-dir:{clip_dir}"),
        sampler=SamplerConfig("ddim", steps=2),
        gate=GateConfig({"rule": rule}),
        grid=GridConfig(items=34, bins=3, draws=1),
        samples=SamplesConfig(rows=2, clip_captions=4),
        copying=CopyingConfig(0),
        retention=RetentionConfig(34),
        reconsider=ReconsiderConfig(4),
        distribution=DistributionConfig("vae", captions=0),
    )
    run.evaluate_run(judged, lines.append)
    found = results.load(config.run.folder / "evaluate" / "report.json")
    assert [c.step for c in found.checkpoints] == [0, 4, 8]
    for name in ("heldout_change", "caption_gain_base", "retention_drift", "retention_loss_change"):
        assert found.metrics[name].value is not None, name
    _check_one_cell(config, found)
    _check_pictures(config, xl_dir)


@torch.no_grad()
def _check_one_cell(config, found):
    """A loss of the base in the evaluation's file, computed by hand."""
    opened = load_run(config.run.folder)
    model = opened.model()
    items = opened.items("val", 34)
    place = next(i for i, row in enumerate(items.conditioning["time_ids"]) if row[0] == 60)
    with np.load(config.run.folder / "evaluate" / "losses.npz") as stored:
        expected = stored["val/00000000"][place, 1, 0]
    from finetune.heldout import HeldoutGrid

    grid = HeldoutGrid(3, 1)
    t = int(grid.timesteps(1000)[1, 0])
    noise = grid.noise(items.keys[place], 1, 0, items.latents.shape[1:])
    noisy = model.schedule.alphas[t] * items.latents[place] + model.schedule.sigmas[t] * noise
    one = items.conditioning.take([place])
    added = {
        "text_embeds": one["pooled"],
        "time_ids": torch.tensor([[60.0, 36, 11, 0, 32, 32]]),
    }
    predicted = model.unet(noisy[None], t, one["hidden"], added_cond_kwargs=added).sample[0]
    assert (predicted - noise).square().mean().item() == pytest.approx(expected, rel=1e-4)


def _check_pictures(config, xl_dir):
    """``evaluate.sample`` draws what plain diffusers draws with the exported LoRA."""
    typed = ["run.name=xl", f"run.root={config.run.root}", "prompt=a red dot", "sampler=euler"]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("sample", overrides=prepare([*typed, "sampler.steps=3", "seeds=1"]))
    sample.start(to_dataclass(cfg, SampleConfig))
    folder = config.run.folder / "evaluate" / "sample"
    [line] = (folder / "samples.jsonl").read_text().splitlines()
    with Image.open(folder / json.loads(line)["file"]) as drawn:
        ours = np.asarray(drawn.convert("RGB"), int)
    pipe = StableDiffusionXLPipeline.from_pretrained(xl_dir)
    pipe.set_progress_bar_config(disable=True)
    pipe.load_lora_weights(config.folder / "export")
    from diffusers import EulerDiscreteScheduler

    pipe.scheduler = EulerDiscreteScheduler.from_config(
        pipe.scheduler.config, timestep_spacing="trailing"
    )
    theirs = pipe(
        "a red dot",
        num_inference_steps=3,
        guidance_scale=5.0,
        height=32,
        width=32,
        generator=torch.Generator().manual_seed(0),
        output_type="np",
    ).images[0]
    assert abs(ours - (theirs * 255).round()).max() <= 1
    assert ours.std() > 5
