"""Evidence that pictures with near perceptual hashes are copies: the same shapes in the same colours.

A perceptual hash says how brightness changes over a picture and nothing else: of a plain picture it says
nothing, and a drawing has the hash of its recoloured twins. What `measures.thumbnail` keeps of a picture
tells them apart.

Measured on OpenMoji at 64 px, 8,888 pairs of different pictures whose hashes are within 4 bits, and on
planted copies within 4 bits of their originals: every third picture with all flags and hearts, and 96
photographs.

| | by the hash alone | ``COPIES`` | ``GROUPS`` |
|---|---|---|---|
| pairs of different pictures | 8,888 | 633 | 3,876 |
| of these pairs of flags | 337 | 13 | 27 |
| of these pairs of hearts | 40 | 0 | 1 |
| flags that are kept, of 259 | 174 | 241 | |
| copies found: JPEG of quality 50, 75, 90 | all | 100, 99.9, 99.9 % | 100 % |
| half or one and a half of the size | all | 100 % | 100 % |
| half the size and quality 50 | all | 98.3 % | 100 % |
| brightness 5 % up or down | all | 100 % | 100 % |
| 2 % cut off | all | 99.5 % | 100 % |
| 4 % cut off | all | 18.9 % | 99.9 % |

Of the photographs' copies all are found, but for those with 4 % cut off (``COPIES``: 61 %). Most of the 633
are men, women and persons who are drawn alike. Of the 13 pairs of flags some are one design under two
names, and the others differ in an emblem. What thumbnails cannot tell apart are pages of few words.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from curate.measures import thumbnail


@dataclass(frozen=True, slots=True)
class Evidence:
    """How much two thumbnails may differ.

    Attributes:
        luma: the largest difference of two cells, of 255.
        chroma: likewise, of Cb and of Cr.
        shape: what is left of the difference without its mean, as a share of the picture's own contrast
            (both root mean square, of Y): all cells of a faint drawing are near those of another.
    """

    luma: int
    chroma: int
    shape: float


COPIES = Evidence(luma=20, chroma=10, shape=0.17)
"""For dropping a picture: another one must not be lost."""

GROUPS = Evidence(luma=45, chroma=15, shape=0.34)
"""For keeping two pictures on one side of the split: a copy missed would leak, a pair too many costs little."""

_LEAST_CONTRAST = 5.0  # root mean square of Y; photographs have 14 and more


def is_plain(thumbnails: np.ndarray) -> np.ndarray:
    """Mask (N,): pictures so plain that their hash says nothing. Equal thumbnails alone make copies of them."""
    return _contrast(thumbnails) < _LEAST_CONTRAST


def alike(one: np.ndarray, other: np.ndarray, limits: Evidence) -> np.ndarray:
    """Which of N pairs of thumbnails (N, ``thumbnail.BYTES``) uint8 may be copies by ``limits``: mask (N,)."""
    luma, chroma = (
        part(one).astype(np.int16) - part(other) for part in (thumbnail.luma, thumbnail.chroma)
    )
    near = (np.abs(luma).max(1) <= limits.luma) & (np.abs(chroma).max(1) <= limits.chroma)
    rows = np.flatnonzero(near)  # few, so that the slower test is cheap
    contrast = np.maximum(_contrast(one[rows]), _contrast(other[rows]))
    near[rows] = luma[rows].std(axis=1) <= limits.shape * contrast
    return near


def _contrast(thumbnails: np.ndarray) -> np.ndarray:
    return thumbnail.luma(thumbnails).std(axis=1, dtype=np.float32)
