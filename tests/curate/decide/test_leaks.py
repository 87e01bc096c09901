"""Siblings planted across the split are found with their nearest; those on one side, and unlike ones, are not."""

import numpy as np
import pandas as pd
import pytest

from curate.decide import leaks
from tests.curate.decide.test_siblings import near, pairs, stored, things

COUNT = 40
LEVEL = 0.7
COMMON = [f"blue thing{n}" for n in range(COUNT)] * 2  # what looks alike is called alike


def table(captions=COMMON):
    """Training pictures, then as many held-out ones: of val, and of test the last ten."""
    sides = ["train"] * COUNT + ["val"] * (COUNT - 10) + ["test"] * 10
    frame = pairs([*captions, *(f"word{n}" for n in range(200))])
    frame["split"] = sides + ["train"] * 200
    return frame.assign(kept=True, duplicate_group=frame["pixels_sha256"])


@pytest.fixture
def vectors():
    """The n-th held-out picture looks like the n-th training picture; others like none."""
    own = things(count=COUNT)
    return np.concatenate([own, near(own), things(8, 200)])


def test_each_held_out_picture_and_its_nearest(tmp_path, vectors):
    found = leaks.measure(table(), stored(tmp_path, vectors, parts=3), LEVEL)
    assert found.summary() == {
        "val": {"looked_at": 30, "with_sibling_in_train": 30},
        "test": {"looked_at": 10, "with_sibling_in_train": 10},
    }
    assert found.share("val") == 1
    twin = {f"k{COUNT + n:04d}": f"k{n:04d}" for n in range(COUNT)}
    pairs_found = dict(zip(found.pairs["key"], found.pairs["other_key"], strict=True))
    assert pairs_found == twin
    exact = (vectors[:COUNT].astype(float) * vectors[COUNT : 2 * COUNT]).sum(1)
    cosines = found.pairs.set_index("key")["cosine"][list(twin)]
    assert cosines.to_numpy() == pytest.approx(exact, abs=1e-5)
    assert found.pairs["cosine"].is_monotonic_decreasing
    assert (found.pairs["shared"] == 1).all()


def test_captions_and_pictures_must_both_be_near(tmp_path, vectors):
    embedded = stored(tmp_path, vectors)
    unlike = [f"thing{n}" for n in range(2 * COUNT)]
    assert leaks.measure(table(unlike), embedded, LEVEL).pairs.empty
    assert leaks.measure(table(), embedded, 0.999).pairs.empty


def test_classes_are_no_siblings(tmp_path, vectors):
    """As in CIFAR-10, where every picture has near ones with the caption of its class."""
    captions = [f"a photo of a class{n % 8}" for n in range(2 * COUNT)]
    frame = table(captions)
    frame.loc[2 * COUNT :, "caption"] = [f"a photo of a class{n % 8}" for n in range(200)]
    found = leaks.measure(frame, stored(tmp_path, vectors), LEVEL)
    assert found.pairs.empty
    assert found.looked_at["val"] == 30


def test_a_sibling_need_not_be_the_very_nearest(tmp_path, vectors):
    own = things(count=COUNT)
    like = np.concatenate([own, near(own), near(own, 7, 0.01), things(8, 160)])  # of other names
    assert leaks.measure(table(), stored(tmp_path, like), LEVEL).share("val") == 1


def test_what_is_dropped_or_not_embedded_does_not_count(tmp_path, vectors):
    frame = table()
    frame.loc[[0, COUNT + 1], "kept"] = False
    listed = [None if n in (2, COUNT + 3) else row for n, row in enumerate(vectors)]
    found = leaks.measure(frame, stored(tmp_path, listed), LEVEL)
    assert found.looked_at == {"val": 28, "test": 10}
    missing = {f"k{COUNT + n:04d}" for n in (0, 1, 2, 3)}
    assert not missing & set(found.pairs["key"])
    assert len(found.pairs) == COUNT - 4


def test_a_draw_of_many(tmp_path, vectors, monkeypatch):
    monkeypatch.setattr(leaks, "LOOKED_AT", 12)
    found = leaks.measure(table(), stored(tmp_path, vectors), LEVEL)
    assert found.looked_at == {"val": 12, "test": 10}
    assert found.share("val") == 1


@pytest.mark.parametrize("kept", [True, False])
def test_nothing_to_compare(tmp_path, vectors, kept):
    found = leaks.measure(
        table().assign(kept=kept, split="train"), stored(tmp_path, vectors), LEVEL
    )
    assert found.pairs.empty
    assert found.share("val") is None
    none = leaks.measure(table().assign(kept=kept), stored(tmp_path, vectors), None)
    assert none.summary() == {}
    assert list(none.pairs.columns) == leaks.COLUMNS


def test_the_order_of_rows_decides_nothing(tmp_path, vectors):
    first = leaks.measure(table(), stored(tmp_path, vectors), LEVEL).pairs
    order = np.random.default_rng(0).permutation(len(vectors))
    turned = table().iloc[order].reset_index(drop=True)
    again = leaks.measure(turned, stored(tmp_path, vectors[order], parts=5), LEVEL).pairs
    pd.testing.assert_frame_equal(first, again)
