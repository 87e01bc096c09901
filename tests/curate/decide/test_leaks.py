"""Siblings planted across the split are found with their nearest; those on one side, and unlike ones, are not."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from curate.decide import leaks
from tests.curate.decide import naive_leaks
from tests.curate.decide.drawn_pictures import copies_of, drawn, stored, unit
from tests.curate.decide.narrow_tables import database, narrowed
from tests.curate.decide.test_siblings import near, pairs, things

COUNT = 40
LEVEL = 0.7
COMMON = [f"blue thing{n}" for n in range(COUNT)] * 2  # what looks alike is called alike


def table(captions=COMMON):
    """Training pictures, then as many held-out ones: of val, and of test the last ten."""
    sides = ["train"] * COUNT + ["val"] * (COUNT - 10) + ["test"] * 10
    frame = pairs([*captions, *(f"word{n}" for n in range(200))])
    frame["split"] = sides + ["train"] * 200
    return frame.assign(kept=True, duplicate_group=frame["pixels_sha256"])


def measure(folder, frame, vectors, level=LEVEL, parts=1, **limits):
    """As the judge asks: by tables of what is kept, captions from the parts."""
    embedded = stored(
        folder, vectors, parts, None, frame["caption"].tolist(), frame["key"].tolist()
    )
    paths = sorted(folder.glob("*.parquet"))
    rows = np.flatnonzero(frame["kept"])
    kept = frame.iloc[rows].assign(image=rows - frame["caption_index"].to_numpy()[rows])
    kept = kept.drop_duplicates("image")
    images = pa.table(
        {
            "image": kept["image"].to_numpy(),
            "split": kept["split"].tolist(),
            "name": pa.array([int(name, 16) for name in kept["duplicate_group"]], pa.uint64()),
        }
    )
    tables = narrowed(frame) | {"kept_rows": pa.table({"row": rows}), "kept_images": images}
    with database(folder, **limits, **tables) as connection:
        found = leaks.measure(connection, embedded, paths, level, folder)
        names = {name for (name,) in connection.sql("SHOW TABLES").fetchall()}
        assert names == {*tables}
    return found


@pytest.fixture
def vectors():
    """The n-th held-out picture looks like the n-th training picture; others like none."""
    own = things(count=COUNT)
    return np.concatenate([own, near(own), things(8, 200)])


def test_each_held_out_picture_and_its_nearest(tmp_path, vectors):
    found = measure(tmp_path, table(), vectors, parts=3)
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
    unlike = [f"thing{n}" for n in range(2 * COUNT)]
    assert measure(tmp_path, table(unlike), vectors).pairs.empty
    assert measure(tmp_path, table(), vectors, 0.999).pairs.empty


def test_classes_are_no_siblings(tmp_path, vectors):
    """As in CIFAR-10, where every picture has near ones with the caption of its class."""
    captions = [f"a photo of a class{n % 8}" for n in range(2 * COUNT)]
    frame = table(captions)
    frame.loc[2 * COUNT :, "caption"] = [f"a photo of a class{n % 8}" for n in range(200)]
    found = measure(tmp_path, frame, vectors)
    assert found.pairs.empty
    assert found.looked_at["val"] == 30


def test_a_sibling_need_not_be_the_very_nearest(tmp_path, vectors):
    own = things(count=COUNT)
    like = np.concatenate([own, near(own), near(own, 7, 0.01), things(8, 160)])  # of other names
    assert measure(tmp_path, table(), like).share("val") == 1


def test_what_is_dropped_or_not_embedded_does_not_count(tmp_path, vectors):
    frame = table()
    frame.loc[[0, COUNT + 1], "kept"] = False
    listed = [None if n in (2, COUNT + 3) else row for n, row in enumerate(vectors)]
    found = measure(tmp_path, frame, listed)
    assert found.looked_at == {"val": 28, "test": 10}
    missing = {f"k{COUNT + n:04d}" for n in (0, 1, 2, 3)}
    assert not missing & set(found.pairs["key"])
    assert len(found.pairs) == COUNT - 4


def test_a_draw_of_many(tmp_path, vectors, monkeypatch):
    monkeypatch.setattr(leaks, "LOOKED_AT", 12)
    found = measure(tmp_path, table(), vectors)
    assert found.looked_at == {"val": 12, "test": 10}
    assert found.share("val") == 1


@pytest.mark.parametrize("kept", [True, False])
def test_nothing_to_compare(tmp_path, vectors, kept):
    found = measure(tmp_path, table().assign(kept=kept, split="train"), vectors)
    assert found.pairs.empty
    assert found.share("val") is None
    none = measure(tmp_path, table().assign(kept=kept), vectors, None)
    assert none.summary() == {}
    assert list(none.pairs.columns) == leaks.COLUMNS


def test_the_order_of_rows_decides_nothing(tmp_path, vectors):
    first = measure(tmp_path, table(), vectors).pairs
    order = np.random.default_rng(0).permutation(len(vectors))
    turned = table().iloc[order].reset_index(drop=True)
    again = measure(tmp_path, turned, vectors[order], parts=5).pairs
    pd.testing.assert_frame_equal(first, again)


def drawn_ledger(seed):
    """A ledger of some kept pairs: of some pictures all captions, of others a part, on three sides."""
    rng = np.random.default_rng(seed)
    table, vectors = drawn(seed, families=120)
    kept = (rng.random(len(table)) < 0.8) & (table["pixels_sha256"] != "")
    sides = pd.Series(rng.choice(["train", "train", "val", "test"], len(table)))
    sides = sides.groupby(table["key"]).transform("first").where(kept, "")
    return table.assign(kept=kept, split=sides, duplicate_group=copies_of(table)), vectors


@pytest.mark.parametrize("seed", range(4))
def test_as_the_oracle(tmp_path, seed, monkeypatch):
    frame, vectors = drawn_ledger(seed)
    if seed >= 2:
        monkeypatch.setattr(leaks, "_BLOCK", 32)
        monkeypatch.setattr(leaks, "_SLICE", 7)
        monkeypatch.setattr(leaks, "_READ", 5)
    expected = naive_leaks.measure(frame, stored(tmp_path, vectors, 4), 0.5)
    assert len(expected.pairs) > 20
    found = measure(tmp_path, frame, vectors, 0.5, 4, memory=300_000_000, threads=1 + seed % 2)
    pd.testing.assert_frame_equal(found.pairs, expected.pairs)
    assert found.summary() == expected.summary()


@pytest.mark.parametrize("kinds", [1, 3, 40])
def test_blocks_decide_nothing_where_many_are_equally_near(kinds):
    """Of equally near ones, the lesser hashes; sums of 500 float32 products differ with the block's shape."""
    rng = np.random.default_rng(kinds)
    images, numbers = np.arange(400), rng.permutation(400).astype(np.uint64)
    own = unit(rng.normal(size=(kinds, 500)))
    vectors = unit(own[rng.integers(0, kinds, 30)] + rng.normal(size=(30, 500)) / 50)
    others = own[rng.integers(0, kinds, 400)]
    exact = np.array(
        [(row * others.astype(float)).sum(axis=1).round(6) for row in vectors.astype(float)]
    )
    expected = np.array([np.lexsort((numbers, -row))[:5] for row in exact])
    for size in (400, 100, 37, 7, 3, 1):
        order = rng.permutation(400)
        cut = [order[start : start + size] for start in range(0, 400, size)]
        near = leaks._nearest(vectors, ((images[at], numbers[at], others[at]) for at in cut))
        assert near.images.tolist() == expected.tolist()
        assert near.numbers.tolist() == numbers[expected].tolist()
        assert near.cosines.tolist() == np.take_along_axis(exact, expected, 1).tolist()


def test_words_of_dropped_captions_make_nothing_common(tmp_path):
    """The captions that are dropped say what the kept ones of siblings say, so that no word would be rare."""
    frame, own = table(), things(count=COUNT)
    vectors = [*own, *near(own), *things(8, 200)]
    many = pairs([" ".join(f"blue thing{n}" for n in range(COUNT))] * 300, "m")
    dropped = many.assign(kept=False, split="", duplicate_group=many["pixels_sha256"])
    both = pd.concat([frame, dropped], ignore_index=True)
    assert measure(tmp_path, both, [*vectors, *[None] * 300]).share("val") == 1
    kept = dropped.assign(kept=True, split="train")
    assert measure(
        tmp_path, pd.concat([frame, kept], ignore_index=True), [*vectors, *[None] * 300]
    ).pairs.empty
