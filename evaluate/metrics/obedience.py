"""Do edges lie where a condition has them? A boundary's F-measure (Martin, Fowlkes & Malik 2004), with a tolerance.

Precision is the share of the drawn edges that have an edge of the condition near, recall the share of the condition's edges
that have a drawn one near; the F-measure is their harmonic mean. Near is 0.75 % of the picture's diagonal, as there, and a
pixel at least. An edge may answer for several here, where Martin et al. match them one to one.
"""

from __future__ import annotations

import numpy as np

from finetune.intervals import Array

NEAR = 0.0075  # of the diagonal


def agreement(drawn: np.ndarray, wanted: np.ndarray) -> float:
    """The F-measure, 0 ... 1, of edges [H, W] bool against those of a condition; NaN where that has none.

    Raises:
        ValueError: the shapes differ.
    """
    from scipy.ndimage import distance_transform_edt

    if drawn.shape != wanted.shape:
        raise ValueError(f"expected edges of one shape, got {drawn.shape} and {wanted.shape}")
    if not wanted.any():
        return float("nan")
    if not drawn.any():
        return 0.0
    near = max(1.0, NEAR * float(np.hypot(*wanted.shape)))
    distances = [np.asarray(distance_transform_edt(~each)) for each in (wanted, drawn)]
    precision = (distances[0][drawn] <= near).mean()
    recall = (distances[1][wanted] <= near).mean()
    both = precision + recall
    return float(2 * precision * recall / both) if both else 0.0


def agreements(drawn: list[np.ndarray], wanted: list[np.ndarray]) -> Array:
    """:func:`agreement` of each of N pictures, float64."""
    return np.array([agreement(one, other) for one, other in zip(drawn, wanted, strict=True)])
