"""Drift is 0 for the same pictures, 1 for shuffled ones, and its interval is as wide as it has to be."""

from __future__ import annotations

import numpy as np
import pytest

from evaluate.metrics.drift import drift


def pictures(count: int = 48, seed: int = 0) -> np.ndarray:
    """[count, 4, 3, 3]: each around a mean of its own, at unequal distances."""
    rng = np.random.default_rng(seed)
    return rng.lognormal(0, 0.5, (count, 1, 1, 1)) * rng.normal(size=(count, 4, 3, 3))


def distances(points: np.ndarray) -> np.ndarray:
    """[N, N], by the definition."""
    flat = [point.ravel().tolist() for point in points]
    return np.array(
        [[sum((x - y) ** 2 for x, y in zip(a, b, strict=True)) ** 0.5 for b in flat] for a in flat]
    )


def test_the_same_pictures_have_moved_by_exactly_nothing():
    assert drift(pictures(), pictures().copy()).tolist() == [0.0] * 48


def test_all_pictures_moved_alike_by_hand():
    base = pictures(5)
    step = np.zeros((4, 3, 3))
    step[0, 0, 0], step[1, 2, 0] = 3, 4  # a distance of 5
    between = distances(base).sum() / (5 * 4)
    assert drift(base, base + step).mean() == pytest.approx(5 / between, rel=1e-12)


def test_pictures_of_other_prompts_have_drifted_by_one():
    """Averaged over all ways to shift them along; scale and place of the latents do not matter."""
    base = 7 * pictures(9) + 100
    shifted = [drift(base, np.roll(base, by, axis=0)).mean() for by in range(1, 9)]
    assert np.mean(shifted) == pytest.approx(1, rel=1e-9)


def test_the_spread_is_that_of_other_sets_of_prompts():
    """What the interval is computed from agrees with the spread over sets that are drawn again."""
    ratios, said, without = [], [], []
    for seed in range(400):
        base = pictures(24, seed)
        noise = np.random.default_rng(seed + 1000).normal(size=base.shape)
        values = drift(base, base + 0.3 * np.abs(base) * noise)
        ratios.append(values.mean())
        said.append(values.std(ddof=1) / np.sqrt(len(values)))
        moved = np.linalg.norm((0.3 * np.abs(base) * noise).reshape(24, -1), axis=1)
        unit = distances(base).sum() / (24 * 23)
        without.append((moved / unit).std(ddof=1) / np.sqrt(24))
    assert np.mean(said) == pytest.approx(np.std(ratios), rel=0.12)
    assert np.mean(without) > 1.5 * np.std(ratios)  # the unit taken as known


def test_one_picture_for_all_prompts_is_no_scale():
    base = np.ones((4, 2))
    assert np.isnan(drift(base, base + 1)).all()


@pytest.mark.parametrize(("base", "other"), [((3, 2), (4, 2)), ((1, 2), (1, 2))])
def test_wrong_shapes_are_refused(base, other):
    with pytest.raises(ValueError, match="N >= 2 pictures"):
        drift(np.zeros(base), np.zeros(other))
