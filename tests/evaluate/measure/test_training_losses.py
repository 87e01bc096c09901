"""Losses that training measured are taken over where they are surely the ones asked for, and only there."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from curate.run import checksums
from evaluate.measure import grid as measuring
from evaluate.measure.grid import Grid, LossStore
from evaluate.measure.training_losses import TrainingLosses
from evaluate.measure_config import GridConfig
from finetune.curve import HeldoutCurve
from finetune.heldout import HeldoutGrid
from finetune.models import load_model
from finetune.opened_run import load_run

CPU = torch.device("cpu")
CELLS = 3 * 2


@pytest.fixture
def trained(make_config, run_training):
    config = make_config(val=8, **{"optim.mixed_precision": "no", "optim.lr": 0.01})
    run_training(config)
    return config.run.folder


@pytest.fixture
def counted(monkeypatch):
    """How many losses the last table took."""
    counts = []
    plain = measuring.grid_losses

    def count(model, unet, items, grid, size, progress):
        counts.append(len(items) * grid.bins * grid.draws)
        return plain(model, unet, items, grid, size, progress)

    monkeypatch.setattr(measuring, "grid_losses", count)

    def table(folder, tmp_path, precision="no", **options):
        counts.clear()
        config = GridConfig(**{"items": 6, "bins": 3, "draws": 2, "batch_size": 5, **options})
        found = Grid(load_run(folder), config, LossStore(tmp_path / "none.npz"), CPU, precision)
        found.store.save = lambda: None
        return found.table(), sum(counts)

    return table


def test_losses_are_equal_with_and_without_and_passes_are_saved(trained, counted, tmp_path):
    reused, few = counted(trained, tmp_path)
    (trained / "finetune" / "heldout.npz").unlink()
    measured, all_of_them = counted(trained, tmp_path)
    rows = 3  # the base and two checkpoints
    assert all_of_them == rows * 2 * 6 * CELLS
    assert few == rows * 2 * 2 * CELLS  # training measured 4 of the 6 pictures
    for name in ("val", "train_probe"):
        np.testing.assert_allclose(getattr(reused, name), getattr(measured, name), rtol=1e-5)
    assert reused.keys == measured.keys


def test_what_a_training_started_with_is_a_row_of_its_own(
    make_config, run_training, trained, counted, tmp_path
):
    """Not the base's, though both are of step 0."""
    config = make_config(
        "second",
        **{"data.run": "tiny", "method.init": "tiny", "optim.mixed_precision": "no"},
    )
    run_training(config)
    reused, few = counted(config.run.folder, tmp_path)
    (config.folder / "heldout.npz").unlink()
    measured, all_of_them = counted(config.run.folder, tmp_path)
    assert (few, all_of_them) == (4 * 2 * 2 * CELLS, 4 * 2 * 6 * CELLS)
    for place in (0, 1):
        np.testing.assert_allclose(reused.start[place], measured.start[place], rtol=1e-5)
    first, _ = counted(trained, tmp_path)
    row = first.steps.index(load_run(trained).exported().step)
    np.testing.assert_allclose(measured.start[0], first.val[row], rtol=1e-5)
    assert not np.allclose(measured.start[0], measured.val[0], rtol=1e-3)
    assert first.start is None


def test_what_is_not_surely_the_same_is_measured(trained, counted, tmp_path):
    everything = 3 * 2 * 4 * CELLS
    assert counted(trained, tmp_path, items=4)[1] == 0
    assert counted(trained, tmp_path, items=4, seed=1)[1] == everything
    assert counted(trained, tmp_path, items=4, draws=1)[1] == everything // 2
    assert counted(trained, tmp_path, "bf16", items=4)[1] == everything
    path = trained / "finetune" / "heldout.npz"
    curve = HeldoutCurve.load(path)
    replace(curve, precisions=["", "", ""]).save(path)  # of an earlier version
    assert counted(trained, tmp_path, items=4)[1] == everything
    curve.val[1] = curve.val[1] * np.float32(1.001)  # not of this checkpoint's weights
    curve.save(path)
    assert counted(trained, tmp_path, items=4)[1] == everything // 3
    path.write_bytes(path.read_bytes()[:-7] + b"damaged")
    assert counted(trained, tmp_path, items=4)[1] == everything


def test_checkpoints_are_judged_at_the_scale_of_the_export(trained, counted, tmp_path):
    whole, _ = counted(trained, tmp_path, items=4)
    path = trained / "finetune" / "config.yaml"
    with checksums.updated(path.parent, (path.name,)):
        stored = OmegaConf.load(path)
        stored.export.scale = 0.5
        OmegaConf.save(stored, path)
    half, measured = counted(trained, tmp_path, items=4)
    assert measured == 2 * 2 * 4 * CELLS, "only the base's losses are those of the training"
    np.testing.assert_array_equal(half.val[0], whole.val[0])
    run = load_run(trained)
    unet = run.config.method.load(run.config.model, trained / "finetune" / "export").unet
    base = load_model(run.config.model).unet
    for weight, own in zip(unet.parameters(), base.parameters(), strict=True):
        weight.data.copy_((weight + own) / 2)
    row = whole.steps.index(run.exported().step)
    items = run.items("val", 4)
    expected = measuring.grid_losses(run.model(), unet, items, HeldoutGrid(3, 2), 8, lambda _: None)
    np.testing.assert_allclose(half.val[row], expected, rtol=1e-4)
    assert not np.allclose(half.val[row], whole.val[row], rtol=1e-3)


def test_other_origins_other_pictures_and_interrupted_checkpoints_are_not_reused(trained):
    run, cells = load_run(trained), HeldoutGrid(3, 2)
    base, last = run.model().fingerprint(), run.checkpoints()[-1]
    known = TrainingLosses(run, cells, "no", base)
    assert len(known.of(last, "val")) == len(known.of(None, "train_probe")) == 4
    assert known.of(last, "test") == {}
    assert known.of(replace(last, interrupted=True), "val") == {}
    assert known.of(replace(last, heldout=None), "val") == {}
    assert known.of(replace(last, scale=0.5), "val") == {}
    assert known.of(replace(last, step=5), "val") == {}
    assert TrainingLosses(run, cells, "no", "another base").of(last, "val") == {}
