"""How much a model draws its training pictures again: distances between drawn and real pictures.

Pictures are drawn for captions of the splits ``train`` and ``val``, by the base and by a checkpoint, from
the same noise. Distances are root mean squares of differences of latents, in units of the mean distance
between real pictures of different groups: 1 is as far apart as two unrelated pictures.

A model that learns a drawing style comes nearer to the real pictures of all captions. One that copies comes
nearer to those that it was trained on. So what counts is how much nearer the picture that belongs to the
caption came, from base to checkpoint, on training less on held-out captions: a difference in differences. Its
groups are two independent samples, see ``finetune.intervals.two_sample``.

After a training on mirrored pictures (``data.flip``) a drawn picture counts in the view, as it is or mirrored, that is
nearer, on both sides and of the base, too.

Comparing training captions alone does not work: a base may be nearer to the training pictures by chance.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from finetune.intervals import Array, Estimate, two_sample

# Of the distance between unrelated pictures; an interval that reaches below it shows no copying. Measured with
# the built-in model: 0.01 to 0.02 in the healthy demo. Trained on 72 pictures (three draws of them) 0.05 to 0.11
# after 33 epochs, 0.13 to 0.25 after 67 and 0.42 after 133; the nearest was the caption's own for 38 to 44 %, 67
# to 75 % and 92 %, with the base for 25 to 31 %. With 48 captions on each side intervals are about +-0.06.
MARGIN = 0.06
MOST_LOOKS = 3  # earlier checkpoints that are looked at, each of which has to draw its pictures
MOST_SUSPICIOUS = 8  # pairs that are shown


@dataclass(frozen=True, slots=True)
class Side:
    """The pictures of N captions of one split, as latents of D numbers.

    Attributes:
        keys, groups: [N] of the captions' pictures.
        real: [N, D], the pictures that the captions belong to.
        base, drawn: [N, D], drawn for them by the base and by the checkpoint, from the same noise; or [V, N, D] in
            several views, of which the nearest to a real picture counts.
    """

    keys: Sequence[str]
    groups: Sequence[str]
    real: Array
    base: Array
    drawn: Array

    def take(self, rows: Sequence[int]) -> Side:
        """Some of the captions."""
        keys, groups = ([names[row] for row in rows] for names in (self.keys, self.groups))
        return Side(
            keys, groups, self.real[rows], self.base[..., rows, :], self.drawn[..., rows, :]
        )


@dataclass(frozen=True, slots=True)
class Found:
    """What was measured of one checkpoint.

    Attributes:
        difference: how much nearer training captions came than held-out ones; positive is copying.
        train, val: [N] how much nearer each picture came to its own real picture.
        unit: the distance between unrelated pictures, in which all of these are measured.
        own_train, own_val: [2, N] bool, of the base and of the checkpoint: whether the nearest of the N real
            pictures is of the caption's own group.
    """

    difference: Estimate
    train: Array
    val: Array
    unit: float
    own_train: Array
    own_val: Array

    @property
    def copies(self) -> bool:
        """Whether the whole interval is above ``MARGIN``."""
        return self.difference.low > MARGIN


def compare(train: Side, val: Side) -> Found:
    """Measure a checkpoint on as many training as held-out captions.

    Raises:
        ValueError: all real pictures are of one group, or all are equal, so that distances have no unit.
    """
    unit = unrelated(np.concatenate([train.real, val.real]), [*train.groups, *val.groups])
    nearer = [came_nearer(side) / unit for side in (train, val)]
    return Found(
        difference=two_sample(nearer[0], train.groups, nearer[1], val.groups),
        train=nearer[0],
        val=nearer[1],
        unit=unit,
        own_train=_own_is_nearest(train),
        own_val=_own_is_nearest(val),
    )


def distances(a: Array, b: Array) -> Array:
    """Root mean square of the differences of each of ``a`` [N, D] with each of ``b`` [M, D]; float64 [N, M].

    >>> distances(np.zeros((1, 4)), np.array([[1.0, 1, 1, 1], [2, 0, 0, 0]])).tolist()
    [[1.0, 1.0]]
    """
    a, b = a.astype(np.float64), b.astype(np.float64)
    squares = (a**2).sum(1)[:, None] + (b**2).sum(1)[None, :] - 2 * a @ b.T
    return np.sqrt(np.maximum(squares, 0) / a.shape[1])


def unrelated(real: Array, groups: Sequence[str]) -> float:
    """Mean distance between real pictures [N, D] of different groups.

    Raises:
        ValueError: it is zero, or there are no two groups.
    """
    names = np.array(groups, object)
    others = names[:, None] != names[None, :]
    mean = float(distances(real, real)[others].mean()) if others.any() else 0.0
    if not mean > 0:
        raise ValueError("real pictures of different groups are needed, and they have to differ")
    return mean


def came_nearer(side: Side) -> Array:
    """[N] how much smaller the distance from the caption's own picture is than the base's."""
    base, drawn = (
        np.sqrt(((latents.astype(np.float64) - side.real) ** 2).mean(-1))
        for latents in (side.base, side.drawn)
    )
    return _nearest_view(base) - _nearest_view(drawn)


def _own_is_nearest(side: Side) -> Array:
    names = np.array(side.groups, object)
    nearest = [_from_views(latents, side.real).argmin(1) for latents in (side.base, side.drawn)]
    return np.stack([names[rows] == names for rows in nearest])


def _nearest_view(found: Array) -> Array:
    """[N] of distances [N] or [V, N]."""
    return found.reshape(-1, found.shape[-1]).min(0)


def _from_views(drawn: Array, real: Array) -> Array:
    """[N, M], the distance of each of ``drawn`` [N, D] or [V, N, D], in its nearest view, from each of ``real`` [M, D]."""
    views = drawn.reshape(-1, *drawn.shape[-2:])
    return np.min([distances(view, real) for view in views], axis=0)


@dataclass(frozen=True, slots=True)
class Nearest:
    """For N drawn pictures the nearest of the training pictures: its key, and its distance [N]."""

    keys: Sequence[str]
    distance: Array


class NearestSearch:
    """Finds the nearest training pictures of drawn ones, a block of training pictures at a time."""

    def __init__(self, drawn: Array) -> None:
        self._drawn = drawn  # [N, D] or [V, N, D], see ``Side``
        self._distance = np.full(drawn.shape[-2], np.inf)
        self._keys: list[str] = [""] * drawn.shape[-2]

    def add(self, keys: Sequence[str], real: Array) -> None:
        """Compare with training pictures [M, D] of these keys."""
        found = _from_views(self._drawn, real)
        rows = found.argmin(1)
        for i, row in enumerate(rows.tolist()):
            if found[i, row] < self._distance[i]:
                self._distance[i] = found[i, row]
                self._keys[i] = str(keys[row])

    def nearest(self) -> Nearest:
        """Of all that were added."""
        return Nearest(self._keys, self._distance)


def most_suspicious(base: Nearest, drawn: Nearest, count: int = MOST_SUSPICIOUS) -> list[int]:
    """The drawn pictures nearest to a training picture, relative to what the base drew for the same caption.

    A plain picture is near to many others whoever drew it, hence the comparison with the base's.
    """
    ratio = drawn.distance / np.maximum(base.distance, np.finfo(float).tiny)
    return np.argsort(ratio, kind="stable")[:count].tolist()


def earlier(row: int, most: int = MOST_LOOKS) -> list[int]:
    """Rows before ``row``, the latest first: all of them or, of more than ``most``, so many at equal distances.

    What is kept was looked at itself, so nothing is assumed about checkpoints in between.

    >>> earlier(3), earlier(4), earlier(20), earlier(1)
    ([2, 1], [3, 2, 1], [15, 10, 5], [])
    """
    looks = min(most, row - 1)
    return [row * (looks + 1 - look) // (looks + 1) for look in range(1, looks + 1)]


def first_without(row: int, vetoed: Callable[[int], str | None]) -> tuple[int, list[str]]:
    """The checkpoint to keep in place of ``row``, and why each of those before it is not.

    Looks at ``row`` and, while there is a reason against it, at earlier ones, see :func:`earlier`. Where none
    is left, it is the base, row 0, which nothing speaks against.
    """
    reasons = []
    for candidate in [row, *earlier(row)] if row else []:
        reason = vetoed(candidate)
        if reason is None:
            return candidate, reasons
        reasons.append(reason)
    return 0, reasons


def reason(found: Found, step: int) -> str:
    """Why a checkpoint that copies is not kept, with its numbers."""
    base, drawn = found.own_train.mean(1)
    more = found.difference
    return (
        f"Step {step:,} copies training pictures: what it draws for training captions came nearer to their own "
        f"pictures than for held-out captions, by {more.value:.2f} [{more.low:.2f}, {more.high:.2f}] of the "
        f"distance between unrelated pictures; the nearest is the caption's own for {drawn:.0%}, with the base "
        f"for {base:.0%}."
    )


def kept_instead(kept: int, also: Sequence[int] = ()) -> str:
    """The end of the sentence: which step is kept, and which others copy, too."""
    others = ", ".join(f"{step:,}" for step in also)
    too = f"Copying, too: step {others}. " if also else ""
    if kept:
        return f"{too}So an earlier checkpoint is kept, of which that is not shown: step {kept:,}."
    return f"{too}So the base is kept: no earlier checkpoint that was looked at is free of it and better than the base."
