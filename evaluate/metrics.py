"""Measures of pictures as pure functions of arrays: prompt following by CLIP, and blank pictures."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL.Image import Image

from finetune.intervals import Array


def clip_similarity(images: Array, texts: Array) -> Array:
    """Cosine of each picture with its own caption; [N, D] unit vectors => [N] in [-1, 1].

    Plain cosine: Hessel et al. (2021) multiply by 2.5 and clip at zero, torchmetrics by 100.

    >>> clip_similarity(np.eye(2), np.array([[1.0, 0.0], [1.0, 0.0]])).tolist()
    [1.0, 0.0]
    """
    return np.einsum("nd,nd->n", images, texts)


def clip_anchors(images: Array, texts: Array, captions: Sequence[str]) -> tuple[Array, Array]:
    """Similarity of each real picture with wrong captions, on average, and with its own.

    Wrong are all captions of the others that read differently.

    Args:
        images: [N, D] unit embeddings of real pictures. texts: [N, D] of their captions.
        captions: [N], to tell equal ones; at least two different ones.

    Returns:
        Two vectors [N]: wrong and right.
    """
    names = np.array(captions, dtype=object)
    mismatched = names[:, None] != names[None, :]
    wrong = (images @ texts.T * mismatched).sum(axis=1) / mismatched.sum(axis=1)
    return wrong, clip_similarity(images, texts)


def anchored(similarity: Array, wrong: Array, right: Array) -> Array:
    """Similarity on the scale where 0 is a wrong caption and 1 is the real picture; all [N].

    The mean is the ratio of means, mean(similarity - wrong) / mean(right - wrong). Around it each
    caption stands as its influence on that ratio (the delta method), so that an interval of the mean
    allows for what is not known about the anchors either.

    >>> anchored(np.array([0.10, 0.20, 0.30]), np.full(3, 0.10), np.full(3, 0.30)).round(3).tolist()
    [0.0, 0.5, 1.0]
    """
    gap = right - wrong
    ratio = (similarity - wrong).mean() / gap.mean()
    return ratio + (similarity - wrong - ratio * gap) / gap.mean()


def is_flat(picture: Image) -> bool:
    """Whether every pixel has the same colour: a black picture, a failed decode."""
    return all(low == high for low, high in picture.convert("RGB").getextrema())  # type: ignore[misc]
