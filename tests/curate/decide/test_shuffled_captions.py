"""The null of shuffled captions, against closed forms."""

import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from curate.decide import shuffled_captions as null
from curate.decide.shuffled_captions import Null
from tests.curate.decide import naive_shuffled_captions as naive
from tests.curate.decide.drawn_pictures import drawn, stored, unit
from tests.curate.decide.narrow_tables import database, narrowed


class InMemory:
    """Stands for `curate.annotate.stage.embeddings.Embeddings`."""

    def __init__(self, images, texts):
        self.images = images.__getitem__
        self.texts = texts.__getitem__
        self.drawn_bits = 0


def annotations(images, texts, captions=None, groups=None):
    count = len(images)
    frame = pd.DataFrame(
        {
            "key": [f"{i:04d}" for i in range(count)],
            "caption": captions or [f"caption {i}" for i in range(count)],
            "caption_index": 0,
            "pixels_sha256": groups or [f"{i:x}" for i in range(count)],
            "clip_similarity": (images * texts).sum(axis=1),
        }
    )
    return frame, InMemory(images, texts)


def shuffled(table, embedded, seed=0, **limits):
    with (
        tempfile.TemporaryDirectory() as folder,
        database(Path(folder), **limits, **narrowed(table)) as connection,
    ):
        return null.shuffled(connection, embedded, seed)


def test_shuffled_similarities_are_those_of_other_captions():
    basis = np.eye(6, dtype=np.float32)  # an image is like its own caption and no other
    null = shuffled(*annotations(basis, basis))
    assert len(null.similarities) > 12
    assert (null.similarities == 0).all()


def test_true_pairs_are_left_out_of_the_null():
    basis = np.eye(4, dtype=np.float32)[[0, 0, 1, 2, 3]]
    same_caption = annotations(basis, basis, captions=["x", "x", "b", "c", "d"])
    same_picture = annotations(basis, basis, groups=["a", "a", "b", "c", "d"])
    for table in (same_caption, same_picture):
        assert shuffled(*table).similarities.max() == 0


def test_null_of_random_directions_is_centred_with_variance_one_over_d():
    rng = np.random.default_rng(0)
    images, texts = (unit(rng.normal(size=(3_000, 64))) for _ in range(2))
    null = shuffled(*annotations(images, texts)).similarities
    assert null.mean() == pytest.approx(0, abs=0.005)
    assert null.var() == pytest.approx(1 / 64, rel=0.05)


@pytest.mark.parametrize("rate", [0.01, 0.05, 0.2, 1.0])
def test_cut_lets_exactly_its_rate_pass(rate):
    null = Null(np.sort(np.random.default_rng(0).normal(size=1_000)).astype(np.float32))
    cut = null.cut(rate)
    assert (null.similarities >= np.float32(cut)).sum() == (
        1_000 * rate if rate < 1 else (null.similarities >= -1).sum()
    )
    assert null.false_keep_rate(cut) == pytest.approx((null.similarities >= np.float32(cut)).mean())


def test_cut_with_ties_never_lets_more_pass():
    null = Null(np.array([0.1] * 50 + [0.2] * 50, np.float32))
    assert null.false_keep_rate(null.cut(0.3)) == 0
    assert null.false_keep_rate(null.cut(0.5)) == 0.5


def test_without_other_captions_there_is_no_null():
    basis = np.eye(4, dtype=np.float32)
    for table in (annotations(basis, basis, captions=["x"] * 4), annotations(basis[:1], basis[:1])):
        null = shuffled(*table)
        assert null.cut(0.1) is None
        assert null.false_keep_rate(0.3) is None
        assert null.separation(np.ones(1, np.float32)) is None


def test_separation_counts_pairs():
    rng = np.random.default_rng(0)
    null, own = (np.sort(rng.integers(0, 9, n)).astype(np.float32) for n in (40, 25))  # with ties
    wins = [1.0 if o > x else 0.5 if o == x else 0.0 for o in own for x in null]
    assert Null(null).separation(own) == pytest.approx(np.mean(wins))


def test_the_same_annotations_give_the_same_null():
    rng = np.random.default_rng(1)
    table = annotations(*(unit(rng.normal(size=(50, 8))) for _ in range(2)))
    first, again, other = shuffled(*table), shuffled(*table), shuffled(*table, seed=1)
    np.testing.assert_array_equal(first.similarities, again.similarities)
    assert first.similarities.tolist() != other.similarities.tolist()


def test_own_captions_are_left_out_though_their_rows_were_not_drawn(monkeypatch):
    vectors = np.eye(3, dtype=np.float32)
    images = np.repeat(vectors[[0]], 400, axis=0)
    texts = vectors[[0, 1]][np.arange(400) % 2]  # each picture's first caption is true and like it
    of_two = [f"{i // 2:x}" for i in range(400)]
    captions = ["an animal" if i % 2 == 0 else f"caption {i}" for i in range(400)]
    table, embeddings = annotations(images, texts, captions, of_two)
    monkeypatch.setattr(null, "MAX_PAIRS", 60)
    found = shuffled(table, embeddings).similarities
    assert len(found)
    assert (found == 0).all()


def drawn_pairs(seed):
    """Pairs with texts near their images; some pictures and captions several times, some not scored."""
    table, vectors = drawn(seed, families=60)
    rng = np.random.default_rng(seed)
    of_row = [vectors[row - index] for row, index in enumerate(table["caption_index"])]
    texts = [None if v is None else unit(v + rng.normal(size=len(v)) / 3) for v in of_row]
    cosine = [np.nan if v is None else float(v @ t) for v, t in zip(of_row, texts, strict=True)]
    return table.assign(clip_similarity=np.float32(cosine)), vectors, texts


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("most", [10_000, 70])
def test_as_the_oracle(tmp_path, seed, most, monkeypatch):
    table, vectors, texts = drawn_pairs(seed)
    embedded = stored(tmp_path, vectors, 4, texts)
    monkeypatch.setattr(null, "MAX_PAIRS", most)
    monkeypatch.setattr(naive, "MAX_PAIRS", most)
    expected = naive.shuffled(table, embedded, seed).similarities
    assert 100 < len(expected) < 4 * min(most, len(table))
    limits = {"memory": 300_000_000, "threads": 1 + seed % 2}
    found = shuffled(table, embedded, seed, **limits).similarities
    np.testing.assert_array_equal(found, expected)
