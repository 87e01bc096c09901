"""How far a model's pictures moved from the base's that began with the same noise, as a share of chance."""

from __future__ import annotations

import numpy as np

from finetune.intervals import Array


def drift(base: Array, other: Array) -> Array:
    """The distance of each pair of pictures, in units of the mean distance of unrelated ones.

    With d_i = |other_i - base_i| and m_i the mean distance of base_i to all other base pictures, drift is
    the ratio mean(d) / mean(m): 0 for the same pictures, 1 for pictures as different as those of
    different prompts.

    Each value is the mean plus that prompt's influence on the ratio (the delta method), so that the
    interval of the mean includes the uncertainty of mean(m). As mean(m) is a U-statistic of pairs, a
    picture's influence on it is 2 (m_i - mean(m)) (Hoeffding 1948, section 5).

    Args:
        base, other: [N, ...] latents of the pictures of N >= 2 different prompts.

    Returns:
        float64 [N]; the mean is the drift. NaN where the base draws one picture for all prompts.

    Raises:
        ValueError: the shapes differ, or there are fewer than two pictures.

    >>> square = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    >>> drift(square, square).tolist()
    [0.0, 0.0, 0.0, 0.0]
    """
    if base.shape != other.shape or len(base) < 2:
        raise ValueError(f"expected two arrays of N >= 2 pictures, got {base.shape}, {other.shape}")
    ours, theirs = (array.reshape(len(array), -1).astype(np.float64) for array in (base, other))
    moved = np.linalg.norm(theirs - ours, axis=1)
    between = _mean_distances(ours)
    unrelated = between.mean()
    if unrelated == 0:
        return np.full(len(ours), np.nan)
    ratio = moved.mean() / unrelated
    return ratio + (moved - moved.mean() - 2 * ratio * (between - unrelated)) / unrelated


def _mean_distances(points: Array) -> Array:
    """Mean Euclidean distance [N] of each of ``points`` [N, D] to the others."""
    rows = [np.linalg.norm(points - point, axis=1).sum() for point in points]
    return np.array(rows) / (len(points) - 1)
