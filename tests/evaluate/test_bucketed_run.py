"""A training in aspect buckets is judged: losses on its own shapes, what is drawn against squares."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from evaluate import results, run
from evaluate.judged_runs.judged import origin_of
from evaluate.measure_config import CopyingConfig, ReconsiderConfig, RetentionConfig
from finetune.latents import of_one_shape
from finetune.opened_run import load_run
from tests.evaluate.test_run import config
from tests.finetune import conftest
from tests.finetune.conftest import picture

SHAPES = [(60, 20), (20, 80), (40, 40), (64, 48)]  # width and height


@pytest.mark.slow
def test_a_training_in_buckets_is_judged(make_run, clip_dir, monkeypatch):
    monkeypatch.setattr(
        conftest, "picture", lambda seed: picture(seed, 80).resize(SHAPES[seed % 4])
    )
    trained = make_run(**{"buckets.enabled": True, "buckets.step": 8})
    asked = replace(
        config(trained, clip_dir),
        copying=CopyingConfig(34),
        retention=RetentionConfig(34),
        reconsider=ReconsiderConfig(4),
    )
    run.evaluate_run(asked, [].append)
    found = results.load(trained.run.folder / "evaluate" / "report.json")
    measured = {name for name, metric in found.metrics.items() if metric.value is not None}
    assert {
        "heldout_change",
        "test_change",
        "caption_gain_base",
        "caption_fit_base",
        "copying",
        "retention_loss_change",
    } <= measured, {name: metric.reason for name, metric in found.metrics.items()}
    assert found.metrics["heldout_change"].n == 34
    stored = load_run(trained.run.folder)
    with np.load(trained.folder / "heldout.npz") as curve:
        assert len({stored.encoded("val").shape_of(n) for n in range(36)}) == 3
        assert curve["val"].shape[1] == 4
    model, buckets = stored.model(), stored.config.buckets.sides(16)
    here, there = (origin_of(model, "shards", each) for each in (buckets, ()))
    assert here["latents"] != there["latents"]
    items = stored.items("val", 30)
    with pytest.raises(ValueError, match="pictures of one shape are needed"):
        of_one_shape(items.latents)
