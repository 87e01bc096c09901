"""Held-out change by slice of the pictures: what each slice gained, and whether it differs from all others.

The change of a slice is that of its own loss: the sum of differences over the sum of the base's losses,
sum(kept - base) / sum(base). So a slice of difficult pictures is not called worse for having more loss to
lose. Each duplicate group counts once, with the mean of those of its pictures that are in the slice.

The interval of such a ratio R of means is that of a mean of the values R + (d - R b) / mean(b), the delta
method (Cochran, "Sampling Techniques", 1977, section 6.4). A slice is compared with all other pictures by
Welch's t (1947); a group with pictures on both sides counts on both as if these were independent, which
makes the interval a little too wide. Many slices are looked at and the worst is named, so intervals of
differences are Bonferroni's: with m slices that can be judged, each has confidence 1 - 0.05 / m.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from finetune.intervals import Array, Estimate, group_means, of_groups, two_sample

if TYPE_CHECKING:
    import pandas as pd

LEAST_GROUPS = 8  # of a slice, and of all other pictures, for it to be judged
_CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Slice:
    """A part of the held-out pictures.

    Attributes:
        dimension: what pictures are divided by. label: which part.
        pictures, groups: how many are in it.
        change: of its own loss against the base's, a fraction, with a 95 % interval.
        among_all: the same with the interval that holds for all slices at once.
        difference: of that change from the change of all other pictures; above zero it gained less. Its
            interval holds for all slices at once.
        Estimates are None where the slice, or the rest, has fewer than ``LEAST_GROUPS`` groups.
    """

    dimension: str
    label: str
    pictures: int
    groups: int
    change: Estimate | None = None
    among_all: Estimate | None = None
    difference: Estimate | None = None

    @property
    def is_worse(self) -> bool:
        """Whether it gained less than the other pictures, by more than chance explains."""
        return self.difference is not None and self.difference.low > 0


@dataclass(frozen=True, slots=True)
class Paired:
    """Losses of N pictures under two models, in any unit, and their groups; row by row the same pictures."""

    kept: Array
    base: Array
    groups: Sequence[str]

    def take(self, mask: np.ndarray) -> Paired:
        """Those where ``mask`` [N] is true."""
        groups = [name for name, inside in zip(self.groups, mask, strict=True) if inside]
        return Paired(self.kept[mask], self.base[mask], groups)


def overall(losses: Paired) -> Estimate:
    """The change of all pictures, as that of a slice."""
    return of_groups(_influences(losses), len(losses.groups))


def judge(losses: Paired, parts: Mapping[str, pd.Categorical[Any]]) -> list[Slice]:
    """Every slice of every dimension, in order; of slices that hold the same pictures, the first.

    Args:
        losses: of the held-out pictures.
        parts: by dimension, the part of each picture [N]; missing for one that is in none.
    """
    masks: dict[tuple[str, str], np.ndarray] = {}
    seen: set[bytes] = set()
    for dimension, part in parts.items():
        for code, label in enumerate(part.categories):
            mask = np.asarray(part.codes) == code
            if mask.any() and not mask.all() and mask.tobytes() not in seen:
                seen.add(mask.tobytes())
                masks[dimension, str(label)] = mask
    groups = np.array(losses.groups, dtype=object)
    enough = {
        name
        for name, mask in masks.items()
        if min(len(set(groups[mask])), len(set(groups[~mask]))) >= LEAST_GROUPS
    }
    confidence = 1 - (1 - _CONFIDENCE) / max(len(enough), 1)
    return [
        _judged(losses, mask, Slice(*name, 0, 0), confidence)
        if name in enough
        else Slice(*name, int(mask.sum()), len(set(groups[mask])))
        for name, mask in masks.items()
    ]


def _judged(losses: Paired, mask: np.ndarray, of: Slice, confidence: float) -> Slice:
    inside, rest = losses.take(mask), losses.take(~mask)
    own, others = _influences(inside), _influences(rest)
    pictures = len(inside.groups)
    each, other = ([str(row) for row in range(len(side))] for side in (own, others))  # one a group
    difference = two_sample(own, each, others, other, confidence)
    return replace(
        of,
        pictures=pictures,
        groups=len(own),
        change=of_groups(own, pictures),
        among_all=of_groups(own, pictures, confidence),
        difference=replace(difference, n=pictures, groups=len(own)),
    )


def _influences(losses: Paired) -> Array:
    """For each group [G] a value; their mean is the ratio, their spread that of the ratio."""
    base = group_means(losses.base, losses.groups)
    difference = group_means(losses.kept - losses.base, losses.groups)
    ratio = difference.mean() / base.mean()
    return ratio + (difference - ratio * base) / base.mean()


def worst(slices: Sequence[Slice]) -> Slice | None:
    """The slice that gained least: of those that are worse than the rest, if there are any; None if none is judged."""
    judged = [found for found in slices if found.difference is not None]
    worse = [found for found in judged if found.is_worse]
    return max(worse or judged, key=_shortfall, default=None)


def _shortfall(found: Slice) -> float:
    assert found.difference is not None
    return found.difference.value
