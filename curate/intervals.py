"""A share that was seen in a number of trials, with its uncertainty."""

from __future__ import annotations

import math
from statistics import NormalDist

Z95 = NormalDist().inv_cdf(0.975)


def wilson(part: float, whole: float, z: float = Z95) -> tuple[float, float]:
    """The score interval of a binomial share; (0, 1) where there is nothing to tell it from.

    Wilson, "Probable inference, the law of succession, and statistical inference" (1927).
    """
    if not whole:
        return 0.0, 1.0
    share, shrink = part / whole, 1 + z * z / whole
    centre = (share + z * z / (2 * whole)) / shrink
    half = z * math.sqrt(share * (1 - share) / whole + z * z / (4 * whole * whole)) / shrink
    return max(0.0, centre - half), min(1.0, centre + half)


def shown(part: float, whole: float) -> str:
    """The share in percent with its 95 % interval; "" of nothing."""
    if not whole:
        return ""
    low, high = wilson(part, whole)
    return f"{part / whole:.1%} [{100 * low:.1f}, {100 * high:.1f}]"
