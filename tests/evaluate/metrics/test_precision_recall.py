"""Precision and recall: against loops, and a planted collapse and planted noise."""

from __future__ import annotations

import numpy as np

from evaluate.metrics.precision_recall import NEIGHBOURS, precision_recall

EACH = [str(i) for i in range(600)]


def modes(rng: np.random.Generator, count: int, each: int) -> np.ndarray:
    centres = 20 * np.random.default_rng(9).normal(size=(10, 6))[:count]
    return np.repeat(centres, each, axis=0) + rng.normal(size=(count * each, 6))


def test_a_collapsed_model_is_precise_and_forgets_the_other_modes():
    rng = np.random.default_rng(0)
    precise, recalled = precision_recall(modes(rng, 2, 300), modes(rng, 10, 60), EACH)
    assert precise.mean() > 0.6
    assert recalled.mean() < 0.25


def test_a_noisy_model_is_not_precise():
    rng = np.random.default_rng(0)
    real = modes(rng, 10, 60)
    precise, recalled = precision_recall(real + 8 * rng.normal(size=real.shape), real, EACH)
    assert precise.mean() < 0.3
    assert recalled.mean() > 0.5


def test_the_same_pictures_are_both():
    real = modes(np.random.default_rng(0), 10, 60)
    for values in precision_recall(real, real, EACH):
        assert values.mean() == 1


def test_against_loops_with_siblings_that_do_not_shrink_a_ball():
    rng = np.random.default_rng(2)
    drawn, real = rng.normal(size=(2, 30, 3))
    groups = [str(i // 3) for i in range(30)]

    def radius(x: np.ndarray, i: int) -> float:
        others = [np.linalg.norm(x[i] - x[j]) for j in range(30) if groups[j] != groups[i]]
        return float(sorted(others)[NEIGHBOURS - 1])

    def like(x: np.ndarray, y: np.ndarray) -> list[float]:
        return [float(any(np.linalg.norm(a - y[j]) <= radius(y, j) for j in range(30))) for a in x]

    precise, recalled = precision_recall(drawn, real, groups)
    assert precise.tolist() == like(drawn, real)
    assert recalled.tolist() == like(real, drawn)
