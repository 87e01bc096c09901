"""A run whose text encoders were trained, judged and drawn from: with its own, not with the base's."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import EulerDiscreteScheduler, StableDiffusionXLPipeline
from hydra import compose, initialize_config_dir
from PIL import Image

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
from finetune.heldout import HeldoutGrid
from finetune.opened_run import load_run
from tests.finetune.conftest import curate
from tests.finetune.models.conftest import xl_dir

__all__ = ["xl_dir"]

TRAINED = {
    "method.text_encoder": True,
    "method.rank": 2,
    "method.alpha": 5.0,
    "optim.lr": 0.02,
    "optim.text_encoder_lr": 0.05,
}


@pytest.fixture
def config(make_config, run_training, xl_dir):
    root = Path(make_config("unused").run.root)
    curate(root / "both" / "curate", {"train": 34, "val": 34}, max_samples=40)
    found = make_config("both", method="lora", **TRAINED)
    found.model.path, found.model.resolution = str(xl_dir), 32
    run_training(found)
    return found


@pytest.mark.slow
def test_verdict_and_pictures_are_of_the_trained_text_encoders(config, xl_dir, clip_dir):
    rule = GateRule(metric="heldout_change", op="<", threshold=0.0, use="ci_high")
    judged = EvaluateConfig(
        run=RunConfig(config.run.root, "both"),
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
    run.evaluate_run(judged, [].append)
    found = results.load(config.run.folder / "evaluate" / "report.json")
    for name in ("heldout_change", "caption_gain_base", "retention_drift", "retention_loss_change"):
        assert found.metrics[name].value is not None, name
    base = StableDiffusionXLPipeline.from_pretrained(xl_dir)
    tuned = StableDiffusionXLPipeline.from_pretrained(xl_dir)
    tuned.load_lora_weights(str(config.folder / "export"))
    kept = load_run(config.run.folder).exported().step
    losses = {name: loss_by_hand(config, pipe) for name, pipe in (("0", base), ("kept", tuned))}
    with np.load(config.run.folder / "evaluate" / "losses.npz") as stored:
        for step, ours in ((0, losses["0"]), (kept, losses["kept"])):
            np.testing.assert_allclose(stored[f"val/{step:08d}"][:4, 1, 0], ours, rtol=1e-4)
    # and the base's text encoders would give another loss
    tuned.text_encoder, tuned.text_encoder_2 = base.text_encoder, base.text_encoder_2
    assert not np.allclose(loss_by_hand(config, tuned), losses["kept"], rtol=1e-3)


@torch.no_grad()
def loss_by_hand(config, pipe) -> np.ndarray:
    """Of four held-out pictures at one noise level, as plain diffusers encodes their captions."""
    run = load_run(config.run.folder)
    model, items, grid = run.model(), run.items("val", 34), HeldoutGrid(3, 1)
    captions, t = run.captions("val", 34), int(grid.timesteps(1000)[1, 0])
    found = []
    for place in range(4):
        noise = grid.noise(items.keys[place], 1, 0, items.latents.shape[1:])
        noisy = model.schedule.alphas[t] * items.latents[place] + model.schedule.sigmas[t] * noise
        hidden, _, pooled, _ = pipe.encode_prompt(
            captions[place], do_classifier_free_guidance=False
        )
        sizes = items.conditioning["time_ids"][place : place + 1]
        predicted = pipe.unet(
            noisy[None], t, hidden, added_cond_kwargs={"text_embeds": pooled, "time_ids": sizes}
        ).sample[0]
        found.append((predicted - noise).square().mean().item())
    return np.array(found)


@pytest.mark.slow
def test_a_scale_is_that_of_all_adapters(config, xl_dir):
    """At 1 the picture of plain diffusers with the export, at 0 that of the base."""
    typed = [f"run.root={config.run.root}", "run.name=both", "prompt=a red dot", "seeds=1"]
    typed += ["sampler=euler", "sampler.steps=3", "lora_scale=[0,0.5,1]"]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        sample.start(to_dataclass(compose("sample", overrides=prepare(typed)), SampleConfig))
    folder = config.run.folder / "evaluate" / "sample"
    lines = (folder / "samples.jsonl").read_text().splitlines()
    ours = []
    for line in lines:
        with Image.open(folder / json.loads(line)["file"]) as picture:
            ours.append(np.asarray(picture.convert("RGB"), int))
    assert len(ours) == 3
    pipe = StableDiffusionXLPipeline.from_pretrained(xl_dir)
    assert abs(ours[0] - _drawn(pipe)).max() <= 1
    pipe.load_lora_weights(str(config.folder / "export"))
    assert abs(ours[2] - _drawn(pipe)).max() <= 1
    scale = {"unet": 0.5, "text_encoder": 0.5, "text_encoder_2": 0.5}
    pipe.set_adapters(pipe.get_active_adapters(), [scale])
    assert abs(ours[1] - _drawn(pipe)).max() <= 1
    assert min(abs(ours[a] - ours[b]).max() for a, b in ((0, 1), (1, 2))) > 1


def _drawn(pipe) -> np.ndarray:
    pipe.set_progress_bar_config(disable=True)
    pipe.scheduler = EulerDiscreteScheduler.from_config(
        pipe.scheduler.config, timestep_spacing="trailing"
    )
    picture = pipe(
        "a red dot",
        num_inference_steps=3,
        guidance_scale=5.0,
        height=32,
        width=32,
        generator=torch.Generator().manual_seed(0),
        output_type="np",
    ).images[0]
    return (picture * 255).round()
