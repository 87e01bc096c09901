"""Runs with a planted truth: score matrices for the rules, and a tiny fine-tuned model to judge whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from evaluate.outputs.headline import findings
from evaluate.results import (
    SCHEMA_VERSION,
    Check,
    CheckpointResult,
    DoubtResult,
    Look,
    Metric,
    Picture,
    Results,
    SliceResult,
    Verdict,
)
from finetune.rules import Evidence
from tests.curate.conftest import save_clip
from tests.finetune.conftest import curate, make_config, pipeline_dir, run_training

__all__ = ["make_config", "pipeline_dir", "run_training"]

HOSTILE = "</script><img src=x onerror=alert(1)>"


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    import torch

    torch.set_num_threads(1)


def scores(means: list[float], items: int = 128, noise: float = 0.01, seed: int = 0) -> np.ndarray:
    """[K+1, items]: pictures differ by 25 %, checkpoints by ``means``, pairs by ``noise``; row 0 is 1."""
    rng = np.random.default_rng(seed)
    base = rng.lognormal(0, 0.25, items)
    base /= base.mean()
    drift = rng.normal(0, noise, (len(means), items))
    drift[0] = 0
    return base * np.array(means)[:, None] + drift


def evidence(val: list[float], train_probe: list[float], seed: int = 0, **options) -> Evidence:
    return Evidence(
        scores(val, seed=seed, **options), scores(train_probe, seed=seed + 999, **options)
    )


@pytest.fixture
def results() -> Results:
    """A complete result, its caption hostile."""
    metric = Metric(-0.0612, -0.074, -0.049, 128, 96, "val")
    points = [
        CheckpointResult(
            step, 8 * step, Metric(v, v, v, 128), Metric(p, p, p, 128),
            (v, 2 * v, None), (p, 2 * p, None),
        )
        for step, v, p in ((0, 0.0, 0.0), (450, -0.0612, -0.07), (900, -0.03, -0.12))
    ]  # fmt: skip
    picture = Picture("k-1", HOSTILE, {"base": "samples/base/k-1.png"})
    for step in (450, 900):
        label = f"step-{step:08d}"
        picture.files[label] = f"samples/{label}/k-1.png"
    judged = Verdict("overfitting", "Since step 900 ...", "Use the kept one.", 450, 450, 450, 900)
    metrics = {
        "heldout_change": metric,
        "exported_change": metric,
        "clip_base": Metric(0.4, 0.3, 0.5, 64),
        "clip_kept": Metric(0.6, 0.5, 0.7, 64),
        "clip_change": Metric(0.2, 0.1, 0.3, 64),
        "test_change": Metric(reason="the split 'test' is empty"),
    }
    looks = (Look(225, 1800, Metric(-0.04, -0.05, -0.03, 32), Metric(-0.05, -0.06, -0.04, 32)),)
    return Results(
        schema_version=SCHEMA_VERSION,
        run="demo",
        verdict=judged,
        findings=findings(judged, metrics),
        gate="passed",
        checks=(Check("a_rule", "heldout_change", "upper bound < 0 %", "-6.1 %", "passed", ""),),
        metrics=metrics,
        checkpoints=tuple(points),
        looks=looks,
        pictures=(picture,),
        copying=None,
        slices=(
            SliceResult("caption length", HOSTILE, metric, Metric(0.1, 0.05, 0.15, 20)),
            SliceResult("similarity", "", Metric(reason="why not"), Metric(reason="why not")),
        ),
        reconsider=(
            DoubtResult("k-9", HOSTILE, "its caption does not help", -0.02, 0.1, 0.2, "doubt.png"),
        ),
        provenance={
            "revision": None,
            "python": "3.11.0",
            "packages": {"torch": "2.15"},
            "curate": {"scorer": "abc"},
            "finetune": {"model": {"path": "x/y"}, "method": {"name": "lora"}},
            "evaluate": {
                "sampler": {"name": "ddim", "steps": 3, "guidance_scale": 5.0},
                "samples": {"seed": 0},
                "clip": {"name": "tiny"},
                "run": {"root": "runs", "name": "demo"},
            },
        },
    )


@pytest.fixture
def make_run(make_config, run_training):
    """A factory of trained runs with 36 held-out pictures; returns the training configuration."""

    def make(name: str = "judged", val: int = 36, test: int = 34, **changes):
        folder = Path(make_config("unused").run.root) / name
        curate(folder / "curate", {"train": 40, "val": val, "test": test}, max_samples=40)
        config = make_config(
            name, method="lora", **{"train.samples": 64, "optim.lr": 0.01, **changes}
        )
        run_training(config)
        return config

    return make


@pytest.fixture(scope="session")
def clip_dir(tmp_path_factory) -> Path:
    return save_clip(tmp_path_factory.mktemp("clips") / "tiny")
