"""Means with their uncertainty: a paired bootstrap over pictures.

At the same picture, timestep and noise, losses differ between checkpoints far less than pictures
differ from each other. Every comparison is therefore a difference per picture first and a mean
second. Its interval says where the mean would fall if other pictures had been drawn.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over ``n`` pictures with the bounds of its interval, all three in the unit of the values."""

    value: float
    low: float
    high: float
    n: int


@dataclass(frozen=True, slots=True)
class Bootstrap:
    """Percentile bootstrap of a mean (Efron 1979). It is seeded: equal values give equal intervals."""

    resamples: int = 2000
    seed: int = 0

    def mean(self, values: Array, confidence: float = 0.95) -> Estimate:
        """Mean of ``values`` [N] with its interval; non-finite values give non-finite bounds.

        Raises:
            ValueError: ``values`` is empty or not a vector.
        """
        if values.ndim != 1 or not len(values):
            raise ValueError(f"expected a non-empty vector of item values, got {values.shape}")
        picks = np.random.default_rng(self.seed).integers(
            0, len(values), (self.resamples, len(values))
        )
        tail = 50 * (1 - confidence)
        means = values.astype(np.float64)[picks].mean(axis=1)
        low, high = np.percentile(means, [tail, 100 - tail])
        return Estimate(float(values.mean(dtype=np.float64)), float(low), float(high), len(values))


def standard_error(values: Array) -> float:
    """Standard error of the mean of ``values`` [N], N >= 2."""
    return float(values.std(ddof=1, dtype=np.float64) / np.sqrt(len(values)))


def detectable_change(differences: Array) -> float:
    """The smallest true mean that paired ``differences`` [N] detect with 80 % power at 5 %.

    (z_0.975 + z_0.8) standard errors, z_0.975 = 1.960 and z_0.8 = 0.842.
    """
    return 2.802 * standard_error(differences)
