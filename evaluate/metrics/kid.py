"""Kernel Inception Distance: how far drawn pictures lie from real ones, over duplicate groups.

The squared maximum mean discrepancy with the cubic kernel of Bińkowski et al. (2018, "Demystifying MMD
GANs", eq. 4 and section 4.1), without its bias: 0 on average where both come from the same distribution, so
that an estimate may be negative.

A duplicate group counts once, by the mean of its kernel values, and pictures of one group are never compared
with each other. The drawn and the real picture of a caption are in one group, too: their likeness would pull
the distance down (Gretton et al. 2012, "A kernel two-sample test", eq. 4, leaves the same terms out).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from finetune.intervals import Array, group_means

# Below, intervals of features that are not of one length are too narrow (see `pseudo_values`), and all are so wide
# that only a gross difference is seen (1.6 times as wide at 12 groups as at 24).
LEAST_GROUPS = 24
PERMUTATIONS = 999


def cubic(x: Array, y: Array) -> Array:
    """Kernel (x·y / d + 1)³ of features [N, d] and [M, d] => [N, M]."""
    return (x.astype(np.float64) @ y.astype(np.float64).T / x.shape[1] + 1) ** 3


def by_group(kernel: Array, groups: Sequence[str]) -> Array:
    """Means of a kernel [N, N] over pairs of groups => [G, G], groups in the order of first appearance."""
    return group_means(group_means(kernel, groups).T, groups).T


def terms(drawn: Array, real: Array, groups: Sequence[str]) -> Array:
    """The terms of the distance between paired features [N, d]: [G, G], symmetric, zero diagonal.

    ``k(x, x') + k(y, y') - k(x, y') - k(y, x')`` for drawn x and real y of one group, x' and y' of another.
    """
    cross = by_group(cubic(drawn, real), groups)
    found = by_group(cubic(drawn, drawn), groups) + by_group(cubic(real, real), groups)
    found -= cross + cross.T
    np.fill_diagonal(found, 0)
    return found


def distance(found: Array) -> float:
    """The mean of ``terms`` [G, G] over pairs of different groups, the unbiased squared MMD."""
    count = len(found)
    return float(found.sum() / (count * (count - 1)))


def pseudo_values(found: Array) -> Array:
    """Jackknife pseudo-values [G] of ``distance``, or of a difference of two; their mean is it exactly.

    G U - (G-1) U₋ᵍ, where U₋ᵍ leaves group g out (Arvesen 1969, "Jackknifing U-statistics"); Student's t
    over them gives the interval. For vectors of one length it covers the truth in 94 to 96 % of cases, and
    near 0, where it is wider than it needs to be, in 99 %; for others in 92 % at 24 groups (89 % at 12).
    """
    count = len(found)
    without = (found.sum() - 2 * found.sum(axis=1)) / ((count - 1) * (count - 2))
    return count * distance(found) - (count - 1) * without


def permutation_p(found: Array, seed: int = 0) -> float:
    """How often a distance as large comes up where drawn and real are exchangeable: at least 1 / 1000.

    Swapping drawn and real of whole groups multiplies ``terms`` [G, G] by the signs of both groups; the
    distance as measured counts as one of the permutations (Phipson and Smyth 2010).
    """
    signs = np.random.default_rng(seed).choice((-1.0, 1.0), (PERMUTATIONS, len(found)))
    swapped = np.einsum("pg,pg->p", signs @ found, signs)
    reached = swapped >= found.sum() * (1 - 1e-12)
    return float((1 + reached.sum()) / (1 + PERMUTATIONS))


def floor(real: Array, groups: Sequence[str], seed: int = 0) -> float:
    """What two sets of as many real pictures stay below in 95 of 100 cases.

    From 999 splits of the groups of ``real`` [N, d] into random halves. The spread of the distance of equal
    distributions is proportional to 1 / sqrt(G (G-1)), which takes it from half as many groups to all.
    """
    kernel = by_group(cubic(real, real), groups)
    np.fill_diagonal(kernel, 0)
    count, half = len(kernel), len(kernel) // 2
    rng = np.random.default_rng(seed)
    order = np.argsort(rng.random((PERMUTATIONS, count)), axis=1)[:, : 2 * half]
    sides = np.zeros((2, PERMUTATIONS, count))
    for side, chosen in enumerate((order[:, :half], order[:, half:])):
        np.put_along_axis(sides[side], chosen, 1.0, axis=1)

    def total(one: int, other: int) -> Array:
        return np.einsum("pg,pg->p", sides[one] @ kernel, sides[other])

    within = (total(0, 0) + total(1, 1)) / (half * (half - 1))
    distances = within - 2 * total(0, 1) / half**2
    scale = np.sqrt(half * (half - 1) / (count * (count - 1)))
    return float(np.percentile(distances, 95) * scale)
