"""Losses with other captions and with none: of the right pictures, stored, and never measured twice."""

from __future__ import annotations

import numpy as np
import pytest

from evaluate import caption_losses, grid
from evaluate.caption_losses import difference, losses_of
from evaluate.evaluation import Evaluation
from finetune.caption_gain import Thinned, partners
from finetune.heldout import grid_losses, relative
from finetune.intervals import quantile
from tests.evaluate.test_run import config


@pytest.fixture
def evaluation(make_run, clip_dir):
    asked = config(make_run(), clip_dir, draws=2)
    return lambda: Evaluation(asked)


def test_gains_follow_from_losses_with_exchanged_captions(evaluation):
    """Measured again here, one set at a time, from captions that are encoded anew."""
    found = evaluation()
    val, row = losses_of(found, "val"), 2
    items = found.run.items("val", 34)
    captions = found.run.captions("val", 34)
    places = np.flatnonzero((partner := partners(items.keys, captions, items.groups)) >= 0)
    assert len(places) >= 32
    model, unet = found.run.model(), found.run.unet_at(found.checkpoint(row))
    cells, table = Thinned.of(found.grid.grid), found.table
    base = cells.among(table.val[0])

    def scores(texts):
        conditioning = model.encode_captions(texts).half().float()  # as the cache keeps them
        those = type(items)(items.keys, items.latents, conditioning, items.groups)
        return relative(grid_losses(model, unet, those, cells, 64), base, items.groups)

    own = relative(cells.among(table.val[row]), base, items.groups)
    given = [captions[j] for j in partner]  # -1, of an item without, is any
    np.testing.assert_allclose(val.against_other(row), (scores(given) - own)[places], atol=1e-4)
    np.testing.assert_allclose(val.against_none(row), scores([""] * 34) - own, atol=1e-3)
    assert (val.effect(row) > 0).all()


def test_the_fit_is_measured_by_the_larger_effect(evaluation, monkeypatch):
    val = losses_of(evaluation(), "val")
    monkeypatch.setattr(type(val), "against_other", lambda _, row: np.full(len(val.exchanged), 0.1))
    effects = {0: 0.4, 1: 0.2, 2: 0.5}
    monkeypatch.setattr(
        type(val), "effect", lambda _, row: np.full(len(val.exchanged), effects[row])
    )
    fits = [val.fit(row).value for row in effects]
    np.testing.assert_allclose(fits, [0.1 / 0.4, 0.1 / 0.4, 0.1 / 0.5])


def test_what_is_stored_is_not_measured_again_and_survives_the_end(evaluation, monkeypatch):
    found = evaluation()
    for split in ("val", "train"):
        for row in (0, 2):
            losses_of(found, split).against_other(row)
            losses_of(found, split).against_none(row)
    found.grid.store.prune()
    names = set(found.grid.store.arrays)
    step = f"{found.table.steps[2]:08d}"
    for name in (f"val/captions-shuffled/{step}", f"train_probe/captions-none/{step}"):
        assert {name, f"{name}/fingerprint"} <= names

    def never(*_, **__):
        raise AssertionError("measured again")

    monkeypatch.setattr(grid, "grid_losses", never)
    monkeypatch.setattr(caption_losses, "caption_effects", never)
    again = evaluation()
    for side in (losses_of(again, "val"), losses_of(again, "train")):
        side.against_other(2), side.against_none(2), side.fit(0)
    monkeypatch.setattr(type(again.run), "captions", lambda *_: [f"caption {i}" for i in range(34)])
    with pytest.raises(AssertionError, match="measured again"):  # others get others' captions
        losses_of(again, "val").against_other(2)


def test_a_difference_of_two_sets_of_pictures_has_welchs_interval():
    rng = np.random.default_rng(0)
    a, b = rng.normal(1, 1, 20), rng.normal(0.2, 3, 30)
    found = difference(a, [f"a{i // 2}" for i in range(20)], b, [f"b{i}" for i in range(30)])
    a = a.reshape(10, 2).mean(axis=1)
    parts = a.var(ddof=1) / 10, b.var(ddof=1) / 30
    degrees = sum(parts) ** 2 / (parts[0] ** 2 / 9 + parts[1] ** 2 / 29)
    half = quantile(0.975, degrees) * sum(parts) ** 0.5
    assert found.value == pytest.approx(a.mean() - b.mean())
    assert found.low == pytest.approx(found.value - half)
    assert found.high == pytest.approx(found.value + half)
    assert (found.n, found.groups) == (50, 40)
    assert difference(a[:1], ["a"], b, [f"b{i}" for i in range(30)]).high == np.inf
