"""Precision and recall of drawn pictures: are they like real ones, and are all real ones like some of them?

Kynkäänniemi et al. (2019), "Improved Precision and Recall Metric for Assessing Generative Models", equations
1 and 2: a picture counts as like a set if it lies in a ball around one of the set's pictures whose radius is
the distance to that picture's third nearest neighbour.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from finetune.intervals import Array

NEIGHBOURS = 3
LEAST_PICTURES = 500  # with fewer, balls of the third neighbour are so large that nearly all pictures lie in them


def precision_recall(drawn: Array, real: Array, groups: Sequence[str]) -> tuple[Array, Array]:
    """Which drawn pictures are like real ones, and which real ones are like drawn ones.

    Args:
        drawn: features [N, D] of drawn pictures. real: [N, D] of the real pictures of their captions.
        groups: [N] duplicate groups; neighbours within a group do not shrink a ball.

    Returns:
        [N] zeros and ones, whose mean is the precision; the same for the recall.
    """
    between = _distances(drawn, real)
    precise = (between <= _radii(real, groups)[None, :]).any(axis=1)
    recalled = (between <= _radii(drawn, groups)[:, None]).any(axis=0)
    return precise.astype(float), recalled.astype(float)


def _radii(features: Array, groups: Sequence[str]) -> Array:
    """Distance of each picture [N] to its third nearest neighbour of another group."""
    labels = np.array(groups, dtype=object)
    distances = _distances(features, features)
    distances[labels[:, None] == labels[None, :]] = np.inf
    return np.partition(distances, NEIGHBOURS - 1, axis=1)[:, NEIGHBOURS - 1]


def _distances(x: Array, y: Array) -> Array:
    """Euclidean distances of [N, D] and [M, D] => [N, M]."""
    x, y = x.astype(np.float64), y.astype(np.float64)
    squares = (x**2).sum(axis=1)[:, None] + (y**2).sum(axis=1)[None, :] - 2 * x @ y.T
    return np.sqrt(np.maximum(squares, 0))
