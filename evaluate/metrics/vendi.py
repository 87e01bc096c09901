"""Vendi score: how many different pictures a set of pictures amounts to.

The exponential of the entropy of the eigenvalues of the weighted similarities (Friedman and Dieng 2023, "The
Vendi Score", definition 3.1; section 3 for weights): 1 where all are equal, n where all n are orthogonal. It
grows with the number of pictures, so that only sets of as many pictures for the same captions compare.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from finetune.intervals import Array


def vendi(features: Array, groups: Sequence[str] | None = None) -> float:
    """The score of unit vectors [N, D] whose similarity is the cosine.

    Args:
        features: one row for each picture.
        groups: of each picture; a group has the weight of one picture. None: every picture its own.

    >>> round(vendi(np.eye(4)), 6), round(vendi(np.ones((4, 1))), 6)
    (4.0, 1.0)
    """
    weights = _weights(groups or [str(row) for row in range(len(features))])
    return _score(features.astype(np.float64), weights)


def log_ratio(kept: Array, base: Array, groups: Sequence[str]) -> Array:
    """Values [G] with the mean T = log(vendi of ``kept`` / vendi of ``base``), both [N, D] unit vectors.

    They are T - (G-1) (T₋ᵍ - mean T₋ᵍ), where T₋ᵍ leaves group g out: Student's t over them gives the
    jackknife's interval around T itself. Its correction of bias is left out, since that extrapolates to sets
    of endless size; the ratio is meant of sets of this size.
    """
    names = list(dict.fromkeys(groups))
    labels = np.array(groups, dtype=object)

    def ratio(rows: NDArray[np.bool_]) -> float:
        weights = _weights(list(labels[rows]))
        return float(
            np.log(_score(kept[rows].astype(np.float64), weights))
            - np.log(_score(base[rows].astype(np.float64), weights))
        )

    whole = ratio(np.ones(len(labels), bool))
    without = np.array([ratio(labels != name) for name in names])
    return whole - (len(names) - 1) * (without - without.mean())


def _weights(groups: Sequence[str]) -> Array:
    """Of each picture, [N], together 1: equal for all groups, and within a group for all its pictures."""
    _, index, sizes = np.unique(np.array(groups), return_inverse=True, return_counts=True)
    return 1 / (len(sizes) * sizes[index])


def _score(features: Array, weights: Array) -> float:
    scaled = features * np.sqrt(weights)[:, None]
    values = np.linalg.eigvalsh(scaled @ scaled.T)
    values = values[values > 1e-12]  # the others are rounding
    return float(np.exp(-(values * np.log(values)).sum()))
