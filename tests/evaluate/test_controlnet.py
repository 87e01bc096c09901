"""A ControlNet judged and drawn from: pictures from the held-out conditions, and from a file."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import ControlNetModel, StableDiffusionControlNetPipeline
from diffusers.schedulers.scheduling_euler_discrete import EulerDiscreteScheduler
from hydra import compose, initialize_config_dir
from PIL import Image

from curate.clip.config import ClipConfig
from curate.run.overrides import CONF, prepare
from curate.run.schema import UserError, to_dataclass
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
from finetune.drawing.sampling import Prompt, Sampler
from finetune.opened_run import load_run
from tests.curate.conftest import save_clip
from tests.finetune.conftest import curate, picture
from tests.finetune.methods.test_controlnet import beside


@pytest.fixture
def trained(make_config, run_training, tmp_path):
    curate(tmp_path / "run" / "curate", {"train": 34, "val": 34}, max_samples=40, beside=beside)
    changes = {"method.condition": "file", "optim.lr": 0.02, "train.samples": 32}
    config = make_config("run", method="controlnet", **changes)
    run_training(config)
    return config


def test_a_run_is_judged_by_pictures_from_held_out_conditions(trained, tmp_path):
    said: list[str] = []
    rule = GateRule(metric="heldout_change", op="<", threshold=0.0, use="ci_high")
    judged = EvaluateConfig(
        run=RunConfig(trained.run.root, "run"),
        clip=ClipConfig(name=f"local-dir:{save_clip(tmp_path / 'clip')}"),
        sampler=SamplerConfig("ddim", steps=2),
        gate=GateConfig({"rule": rule}),
        grid=GridConfig(items=34, bins=3, draws=1),
        samples=SamplesConfig(rows=2, clip_captions=4),
        copying=CopyingConfig(4),
        retention=RetentionConfig(0),
        reconsider=ReconsiderConfig(0),
        distribution=DistributionConfig("vae", captions=0),
    )
    run.evaluate_run(judged, said.append)
    folder = trained.run.folder / "evaluate"
    found = results.load(folder / "report.json")
    kept = found.verdict.kept
    assert kept
    opened = load_run(trained.run.folder)
    items, stored = opened.items("val", 34), {c.step: c for c in opened.checkpoints()}
    captions = opened.captions("val", 34)
    sampler = Sampler(opened.model(), SamplerConfig("ddim", steps=2), 0, 8)
    [drawn] = sampler.draw(
        opened.unet_at(stored[kept]),
        [Prompt(items.keys[0], captions[0], control=items.conditioning["control"][0])],
    )
    with Image.open(folder / f"samples/step-{kept:08d}/{items.keys[0]}.png") as file:
        assert abs(np.asarray(file, int) - np.asarray(drawn, int)).max() <= 1
        own = np.asarray(file, int)
    with Image.open(folder / f"samples/base/{items.keys[0]}.png") as file:
        assert abs(np.asarray(file, int) - own).max() > 1
    change = found.metrics["obedience_change"]
    page = (folder / "report.html").read_text()
    if find_spec("cv2"):
        assert change.value is not None
        assert "Edges of the 4 pictures that were drawn for held-out captions" in page
    else:
        assert "darkroom[control]" in change.reason


def compose_sample(*typed: str) -> SampleConfig:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("sample", overrides=prepare(list(typed)))
    return to_dataclass(cfg, SampleConfig)


def test_a_file_is_followed_as_diffusers_follows_it(
    trained, tmp_path, capsys, make_config, run_training
):
    file = tmp_path / "condition.png"
    picture(5, 16).save(file)
    typed = ["run.name=run", f"run.root={trained.run.root}", "prompt=a red dot", "sampler=euler"]
    typed += ["sampler.steps=3", "seeds=1"]
    sample.start(compose_sample(*typed, f"control={file}"))
    folder = trained.run.folder / "evaluate" / "sample"
    [record] = [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]
    assert record["control"]["file"] == str(file)
    with Image.open(folder / record["file"]) as drawn:
        ours = np.asarray(drawn.convert("RGB"), int)
    controlnet = ControlNetModel.from_pretrained(trained.folder / "export")
    pipe = StableDiffusionControlNetPipeline.from_pretrained(
        trained.model.path, controlnet=controlnet, safety_checker=None
    )
    pipe.set_progress_bar_config(disable=True)
    pipe.scheduler = EulerDiscreteScheduler.from_config(
        pipe.scheduler.config, timestep_spacing="trailing"
    )
    drawn: Any = pipe(
        "a red dot",
        image=Image.open(file),
        num_inference_steps=3,
        guidance_scale=5.0,
        height=16,
        width=16,
        generator=torch.Generator().manual_seed(0),
        output_type="np",
    )
    theirs = drawn.images[0]
    assert abs(ours - (theirs * 255).round()).max() <= 1
    capsys.readouterr()
    sample.start(compose_sample(*typed))
    assert "without control=FILE a ControlNet draws what its base draws" in capsys.readouterr().out
    [record] = [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]
    assert "control" not in record
    with Image.open(folder / record["file"]) as drawn:
        assert abs(np.asarray(drawn.convert("RGB"), int) - ours).max() > 1

    run_training(make_config("plain", method="lora", **{"train.samples": 4}))
    other = [text.replace("run.name=run", "run.name=plain") for text in typed]
    with pytest.raises(UserError, match=r"was trained with method=lora; remove control"):
        sample.start(compose_sample(*other, f"control={file}"))
    with pytest.raises(FileNotFoundError, match="is no file; type control=FILE"):
        sample.start(compose_sample(*typed, f"control={Path('none.png')}"))
    with pytest.raises(UserError, match="has no such scale; remove lora_scale"):
        sample.start(compose_sample(*typed, "lora_scale=0.5"))
