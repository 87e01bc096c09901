"""Shares and changes as they are printed, and the confidence interval of a share."""

from __future__ import annotations

import math
from statistics import NormalDist

Z95 = NormalDist().inv_cdf(0.975)


def wilson(part: float, whole: float, z: float = Z95) -> tuple[float, float]:
    """The score interval of a binomial share; (0, 1) if there are no trials.

    Wilson, "Probable inference, the law of succession, and statistical inference" (1927).
    """
    if not whole:
        return 0.0, 1.0
    share, shrink = part / whole, 1 + z * z / whole
    centre = (share + z * z / (2 * whole)) / shrink
    half = z * math.sqrt(share * (1 - share) / whole + z * z / (4 * whole * whole)) / shrink
    return max(0.0, centre - half), min(1.0, centre + half)


def shown(part: float, whole: float) -> str:
    """The share in percent with its 95 % interval; "" if ``whole`` is zero."""
    if not whole:
        return ""
    low, high = wilson(part, whole)
    return f"{part / whole:.1%} [{100 * low:.1f}, {100 * high:.1f}]"


def changes(*fractions: float) -> tuple[str, ...]:
    """Fractions as signed percent: one decimal, or as many as tell the largest of them from zero.

    >>> changes(-0.0612, -0.074), changes(-0.00009, 0.000004)
    (('-6.1', '-7.4'), ('-0.009', '+0.000'))
    """
    largest = max((100 * abs(x) for x in fractions if math.isfinite(x)), default=0.0)
    decimals = max(1, -math.floor(math.log10(largest))) if largest else 1
    return tuple(f"{100 * x:+.{decimals}f}" for x in fractions)
