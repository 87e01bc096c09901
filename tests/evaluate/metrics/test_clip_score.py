"""Anchored CLIP scores and retrieval: by hand, by brute force, and against chance."""

from __future__ import annotations

import numpy as np
import pytest

from evaluate.metrics.clip_score import anchored, clip_anchors, clip_similarity, distinct, retrieved
from finetune.intervals import estimate, group_means


def unit(*shape: int, seed: int = 0) -> np.ndarray:
    values = np.random.default_rng(seed).normal(size=shape)
    return values / np.linalg.norm(values, axis=-1, keepdims=True)


def test_anchors_are_the_diagonal_and_the_mismatched_rest():
    images, texts = unit(5, 8), unit(5, 8, seed=1)
    groups = ["a", "b", "a", "c", "d"]
    found = clip_anchors(images, texts, groups)
    for i in range(5):
        others = [images[i] @ texts[j] for j in range(5) if groups[i] != groups[j]]
        assert found[0][i] == pytest.approx(np.mean(others))
        assert found[1][i] == pytest.approx(images[i] @ texts[i])


def test_anchored_scale_is_one_for_the_real_pictures_and_zero_for_shuffled_captions():
    texts = unit(60, 16)
    images = unit(60, 16, seed=1) + 2 * texts
    images /= np.linalg.norm(images, axis=1, keepdims=True)
    groups = [str(i) for i in range(60)]
    anchors = clip_anchors(images, texts, groups)
    real = anchored(clip_similarity(images, texts), *anchors, groups)
    assert real.mean() == pytest.approx(1)
    rolled = [
        anchored(clip_similarity(images, np.roll(texts, k, axis=0)), *anchors, groups).mean()
        for k in range(1, 60)
    ]
    assert np.mean(rolled) == pytest.approx(0, abs=1e-9)


def test_a_group_counts_once_on_the_scale():
    groups = ["a", "a", "a", "b"]
    wrong, right = np.zeros(4), np.array([1.0, 1.0, 1.0, 3.0])
    found = anchored(np.array([1.0, 1.0, 1.0, 0.0]), wrong, right, groups)
    assert group_means(found, groups).mean() == pytest.approx(1 / 4)  # (1 + 0) / (1 + 3)


def test_the_interval_of_the_anchored_mean_covers_the_truth():
    """Anchors of 40 captions are estimates too; taken as exact, the interval covers 60 % or so."""
    rng, covered, trials = np.random.default_rng(0), 0, 300
    groups = [str(i) for i in range(40)]
    for _ in range(trials):
        wrong = rng.normal(0.1, 0.05, 40)
        right = wrong + rng.normal(0.1, 0.15, 40)
        drawn = wrong + rng.normal(0.2, 0.05, 40)  # twice as far from wrong as the real pictures
        found = estimate(anchored(drawn, wrong, right, groups))
        covered += found.low <= 2 <= found.high
    assert covered / trials > 0.88


@pytest.mark.parametrize(
    ("captions", "groups", "joined"),
    [
        (["a", "b", "c"], ["1", "2", "3"], ["1", "2", "3"]),
        (["A red cat.", "a cat, RED", "dog"], ["1", "2", "3"], ["1", "1", "3"]),
        (["cat", "dog"], ["1", "1"], ["1", "1"]),
        (["x", "y", "y", "x"], ["1", "1", "2", "3"], ["1", "1", "1", "1"]),  # by way of others
        (["!", "?"], ["1", "2"], ["1", "2"]),
        (["two red cats", "two cats"], ["1", "2"], ["1", "2"]),
    ],
)
def test_groups_whose_captions_say_the_same_are_joined(captions, groups, joined):
    assert distinct(captions, groups) == joined


def test_retrieval_counts_the_groups_whose_first_caption_fits_better():
    images, texts = unit(12, 4), unit(12, 4, seed=1)
    groups = [*"aabcccdefgha"]
    firsts = {group: groups.index(group) for group in groups}
    for first in (1, 3, 5):
        found = retrieved(images, texts, groups, first)
        for i in range(12):
            own = images[i] @ texts[i]
            better = sum(images[i] @ texts[j] >= own for g, j in firsts.items() if g != groups[i])
            assert found[i] == float(better < first)


def test_planted_pictures_are_found_and_unrelated_ones_by_chance():
    texts, groups = unit(40, 32), [str(i // 2) for i in range(40)]
    assert retrieved(texts, texts, groups, 1).mean() == 1
    for first in (1, 5):
        shares = [
            group_means(retrieved(unit(40, 32, seed=s), texts, groups, first), groups).mean()
            for s in range(1, 151)
        ]
        error = np.std(shares) / np.sqrt(len(shares))
        assert np.mean(shares) == pytest.approx(first / 20, abs=3.5 * error)


def test_siblings_and_equal_captions_are_not_wrong_answers():
    texts = np.eye(4)[[0, 0, 1, 2]]  # the first two read the same
    images = np.eye(4)[[0, 0, 1, 2]]
    assert retrieved(images, texts, ["a", "a", "b", "c"], 1).tolist() == [1, 1, 1, 1]
    assert retrieved(images, texts, ["a", "d", "b", "c"], 1).tolist() == [0, 0, 1, 1]  # a tie
