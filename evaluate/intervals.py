"""Estimates with their uncertainty: paired bootstrap over held-out items.

Losses at the same item, timestep and noise differ between checkpoints far less than items differ
from each other, so every comparison is a difference per item first and a mean second. The interval
then answers "what if other held-out pictures had been drawn", which is the claim a verdict makes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over ``n`` items with the bounds of its interval; all three in the unit of the metric."""

    value: float
    low: float
    high: float
    n: int


@dataclass(frozen=True, slots=True)
class Bootstrap:
    """Percentile bootstrap of a mean (Efron 1979), seeded: the same items give the same interval."""

    resamples: int = 2000
    seed: int = 0

    def mean(self, values: Array, confidence: float = 0.95) -> Estimate:
        """Mean of ``values`` [N] with its interval; non-finite values give non-finite bounds."""
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
    """The smallest true mean that these paired ``differences`` [N] show with 80 % power at 5 %.

    (z_0.975 + z_0.8) standard errors, z_0.975 = 1.960 and z_0.8 = 0.842.
    """
    return 2.802 * standard_error(differences)
