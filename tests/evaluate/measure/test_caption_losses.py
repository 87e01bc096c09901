"""Losses with other captions and with none: of the right pictures, stored, and never measured twice."""

from __future__ import annotations

import numpy as np
import pytest

from evaluate.evaluation import Evaluation
from evaluate.measure import caption_losses, grid
from finetune.caption_gain import Thinned, partners
from finetune.heldout import grid_losses, relative
from tests.evaluate.test_run import config


@pytest.fixture
def evaluation(make_run, clip_dir):
    asked = config(make_run(), clip_dir, draws=2)
    return lambda: Evaluation(asked)


def test_gains_follow_from_losses_with_exchanged_captions(evaluation):
    """Measured again here, one set at a time, from captions that are encoded again."""
    found = evaluation()
    val, row = found.caption_losses("val"), 2
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
    val = evaluation().caption_losses("val")
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
            found.caption_losses(split).against_other(row)
            found.caption_losses(split).against_none(row)
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
    for side in (again.caption_losses("val"), again.caption_losses("train")):
        side.against_other(2), side.against_none(2), side.fit(0)
    monkeypatch.setattr(type(again.run), "captions", lambda *_: [f"caption {i}" for i in range(34)])
    with pytest.raises(AssertionError, match="measured again"):  # others get others' captions
        again.caption_losses("val").against_other(2)
