"""Two-sided p values of paired differences, and Holm's correction for looking at several of them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from finetune.intervals import Array, group_means, standard_error


def p_value(differences: Array, groups: Sequence[str]) -> float:
    """The p value of "the true mean is zero", by Student's t over the means of the groups.

    Args:
        differences: [N], one for each picture.
        groups: [N]; the pictures of one group count together as one.

    Returns:
        In [0, 1]; 1 where all differences are zero, NaN where one is not finite.

    Raises:
        ValueError: there are fewer than two groups.
    """
    from scipy.special import stdtr  # here: the command refuses most mistakes without it

    means = group_means(differences, groups)
    if len(means) < 2:
        raise ValueError(f"a p value needs two groups or more, got {len(means)}")
    if not np.isfinite(means).all():
        return math.nan
    mean, error = float(means.mean()), standard_error(means)
    if error == 0:
        return 1.0 if mean == 0 else 0.0
    return float(2 * stdtr(len(means) - 1, -abs(mean / error)))


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p values: if those below 0.05 are called differences, the chance of one false alarm or more is 5 %.

    The smallest p of m is multiplied by m, the next by m - 1 and so on; none becomes smaller than one before
    it, or larger than 1. It holds whatever the dependence between the comparisons. Holm, "A simple sequentially
    rejective multiple test procedure" (1979).

    >>> [round(p, 3) for p in holm([0.01, 0.04, 0.03])]
    [0.03, 0.06, 0.06]
    """
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted
