"""Aspect buckets: the few sizes that pictures of any shape are resized and cropped to.

The sizes are those of kohya's ``make_bucket_resolutions``: both sides are multiples of a step and within limits, the
area is at most that of the square, and to each width belongs the largest height that this leaves, and the other way
round. A picture goes into the bucket of the nearest shape. kohya compares width / height by their difference; here it
is their ratio, so that a picture and the same turned by 90 degrees go into buckets that are turned, too, and the least
possible is cropped away.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

Sides = tuple[int, int]
"""Height and width in pixels."""

LEAST_SPARE = 1.0  # pixels


def sides(resolution: int, step: int, least: int, most: int) -> tuple[Sides, ...]:
    """The buckets, by height; none where no multiple of ``step`` is within the limits.

    Args:
        resolution: side of the square whose area no bucket exceeds.
        step: both sides are multiples of it.
        least, most: of both sides.

    >>> sides(512, 128, 256, 768)
    ((256, 768), (384, 640), (512, 512), (640, 384), (768, 256))
    """
    found = set()
    whole = [length * step for length in range(-(-least // step), most // step + 1)]
    for length in whole:
        other = min(whole[-1], resolution**2 // length // step * step)
        if other >= whole[0]:
            found |= {(length, other), (other, length)}
    square = resolution // step * step
    if square in whole:
        found.add((square, square))
    return tuple(sorted(found))


def nearest(sizes: np.ndarray, buckets: Sequence[Sides]) -> np.ndarray:
    """The place of each picture's bucket: of the nearest shape, of several the largest.

    Args:
        sizes: [2, N], widths and heights of pictures.
        buckets: at least one.

    Returns:
        int64 [N].
    """
    order = sorted(range(len(buckets)), key=lambda place: -math.prod(buckets[place]))
    best = np.zeros(sizes.shape[1], np.int64)
    most = np.full(sizes.shape[1], -1.0)
    for place in order:
        share = kept(sizes, np.array(buckets[place])[:, None])
        better = share > most
        best[better], most[better] = place, share[better]
    return best


def targets(sizes: np.ndarray, buckets: Sequence[Sides]) -> np.ndarray:
    """The height and the width of each picture's bucket, int64 [2, N]; arguments as for :func:`nearest`."""
    return np.array(buckets)[nearest(sizes, buckets)].T


def kept(sizes: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """The share of a picture's pixels that is not cropped away, float64 [N].

    Args:
        sizes: [2, N], widths and heights of pictures.
        targets: [2, N] or [2, 1], heights and widths that they are cropped to.
    """
    (widths, heights), (height, width) = sizes.astype(np.int64), targets.astype(np.int64)
    one, other = widths * height, heights * width
    return np.minimum(one, other) / np.maximum(one, other)


def enlarged(sizes: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Whether a picture has fewer pixels than what it is cropped to, bool [N]; arguments as for :func:`kept`."""
    return np.any(sizes < targets[::-1], axis=0)


def movable(sizes: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Whether a resized picture is longer than its target by ``LEAST_SPARE``, so that crops of it differ, bool [N].

    Arguments as for :func:`kept`.
    """
    (widths, heights), (height, width) = sizes.astype(np.int64), targets.astype(np.int64)
    difference = widths * height - heights * width
    return np.abs(difference) >= LEAST_SPARE * np.where(difference > 0, heights, widths)


def shown(bucket: Sides) -> str:
    """Width and height, as pictures' sizes are usually written.

    >>> shown((512, 768))
    '768x512'
    """
    return f"{bucket[1]}x{bucket[0]}"
