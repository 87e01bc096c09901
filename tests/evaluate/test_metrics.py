"""CLIP measures by hand and by brute force, and their behaviour under copies and shuffles."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from evaluate import metrics
from finetune.intervals import Bootstrap


def unit(*shape: int, seed: int = 0) -> np.ndarray:
    values = np.random.default_rng(seed).normal(size=shape)
    return values / np.linalg.norm(values, axis=-1, keepdims=True)


def test_anchors_are_the_diagonal_and_the_mismatched_rest():
    images, texts = unit(5, 8), unit(5, 8, seed=1)
    captions = ["a", "b", "a", "c", "d"]
    found = metrics.clip_anchors(images, texts, captions)
    for i in range(5):
        others = [images[i] @ texts[j] for j in range(5) if captions[i] != captions[j]]
        assert found[0][i] == pytest.approx(np.mean(others))
        assert found[1][i] == pytest.approx(images[i] @ texts[i])


def test_anchored_scale_is_one_for_the_real_pictures_and_zero_for_shuffled_captions():
    texts = unit(60, 16)
    images = unit(60, 16, seed=1) + 2 * texts
    images /= np.linalg.norm(images, axis=1, keepdims=True)
    captions = [str(i) for i in range(60)]
    anchors = metrics.clip_anchors(images, texts, captions)
    real = metrics.anchored(metrics.clip_similarity(images, texts), *anchors)
    assert real.mean() == pytest.approx(1)
    rolled = [
        metrics.anchored(
            metrics.clip_similarity(images, np.roll(texts, k, axis=0)), *anchors
        ).mean()
        for k in range(1, 60)
    ]
    assert np.mean(rolled) == pytest.approx(0, abs=1e-9)


def test_the_interval_of_the_anchored_mean_covers_the_truth():
    """Anchors of 40 captions are estimates too; taken as exact, the interval covers 60 % or so."""
    rng, covered, trials = np.random.default_rng(0), 0, 300
    for _ in range(trials):
        wrong = rng.normal(0.1, 0.05, 40)
        right = wrong + rng.normal(0.1, 0.15, 40)
        drawn = wrong + rng.normal(0.2, 0.05, 40)  # twice as far from wrong as the real pictures
        found = Bootstrap(400).mean(metrics.anchored(drawn, wrong, right))
        covered += found.low <= 2 <= found.high
    assert covered / trials > 0.88


def test_flat_pictures():
    assert metrics.is_flat(Image.new("RGB", (8, 8), "navy"))
    almost = Image.new("RGB", (8, 8))
    almost.putpixel((3, 3), (0, 0, 1))
    assert not metrics.is_flat(almost)
