"""The U-Net in bf16: near the losses and pictures in fp32, stored apart, and never compared with them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from curate.run.schema import UserError
from evaluate.evaluation import Evaluation
from evaluate.measure.grid import Grid, LossStore
from evaluate.measure_config import GridConfig, MeasureConfig
from finetune import precision
from finetune.drawing.config import SamplerConfig
from finetune.drawing.sampling import Prompt, Sampler
from finetune.models import load_model
from finetune.models.config import ModelConfig
from finetune.opened_run import load_run

CPU = torch.device("cpu")


@pytest.fixture
def model(pipeline_dir):
    return load_model(ModelConfig(path=str(pipeline_dir), resolution=16))


def test_the_unet_computes_in_bf16_and_is_itself_again_after(model):
    noisy, t = torch.randn(2, 4, 4, 4), torch.tensor([3, 900])
    captions = model.encode_captions(["red bar", ""])
    seen = []
    model.unet.conv_in.register_forward_hook(lambda *a: seen.append(a[2].dtype))
    outputs = []
    for name in ("no", "bf16", "no"):
        with torch.no_grad(), precision.computing_in(name, model.unet):
            outputs.append(model.predict(model.unet, noisy, t, captions))
    assert seen == [torch.float32, torch.bfloat16, torch.float32]
    assert torch.equal(outputs[0], outputs[2])
    assert outputs[1].dtype == torch.float32
    torch.testing.assert_close(outputs[1], outputs[0], atol=0.05, rtol=0.05)
    assert not torch.equal(outputs[1], outputs[0])


def test_losses_of_bf16_are_near_and_stored_apart(make_config, run_training, tmp_path):
    config = make_config(method="full", val=34)
    run_training(config)
    run = load_run(config.run.folder)
    store = LossStore(tmp_path / "losses.npz")
    items = run.items("val", 34)

    def grid(name):
        return Grid(run, GridConfig(bins=4), store, CPU, name)

    plain, bf16 = (grid(name).measure([None], {"val": items})["val"] for name in ("no", "bf16"))
    np.testing.assert_allclose(bf16, plain, rtol=0.05)
    assert not np.array_equal(bf16, plain)
    marks = {name: grid(name).fingerprint("base", items) for name in ("no", "bf16", "fp16")}
    assert len(set(marks.values())) == 3
    assert store.has("val/00000000", marks["bf16"])
    assert not store.has("val/00000000", marks["no"])


def test_pictures_of_bf16_are_near_and_have_their_own_fingerprint(model):
    prompt, drawn, marks = Prompt("a", "red bar"), [], []
    for name in ("no", "bf16"):
        sampler = Sampler(model, SamplerConfig("dpm_solver++", 2), 0, 4, precision=name)
        drawn.append(np.asarray(sampler.draw(model.unet, [prompt])[0], np.float64))
        marks.append(sampler.fingerprint(prompt, "weights"))
    assert marks[0] != marks[1]
    assert marks[0] == Sampler(model, sampler.config, 0, 1).fingerprint(prompt, "weights")
    assert 0 < np.abs(drawn[0] - drawn[1]).mean() < 10


def test_fp16_is_refused_on_a_cpu(make_config, run_training, clip_dir):
    with pytest.raises(UserError, match="precision=fp8 is out of range"):
        MeasureConfig(precision="fp8")
    precision.refuse("fp16", torch.device("cuda"))
    config = make_config()
    run_training(config)
    asked = MeasureConfig(run=config.run, device="cpu", precision="fp16")
    with pytest.raises(UserError, match="precision=fp16 needs a GPU"):
        Evaluation(asked)
