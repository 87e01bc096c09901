"""Measures of pictures as pure functions of arrays: prompt following by CLIP, and blank pictures."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL.Image import Image

from evaluate.intervals import Array


def clip_similarity(images: Array, texts: Array) -> Array:
    """Cosine of each picture with its own caption; [N, D] unit vectors => [N] in [-1, 1].

    Plain cosine: Hessel et al. (2021) multiply by 2.5 and clip at zero, torchmetrics by 100.

    >>> clip_similarity(np.eye(2), np.array([[1.0, 0.0], [1.0, 0.0]])).tolist()
    [1.0, 0.0]
    """
    return np.einsum("nd,nd->n", images, texts)


def clip_anchors(images: Array, texts: Array, captions: Sequence[str]) -> tuple[float, float]:
    """Mean similarity of real pictures with other pictures' captions, and with their own.

    All mismatched pairs are averaged, which is the expectation over shuffles; pairs whose captions
    read the same are no mismatch.

    Args:
        images: [N, D] unit embeddings of real pictures. texts: [N, D] of their captions.
        captions: [N], to tell equal ones.
    """
    names = np.array(captions, dtype=object)
    mismatched = names[:, None] != names[None, :]
    table = images @ texts.T
    if not mismatched.any():
        raise ValueError("all captions are the same; there is no mismatch to anchor on")
    return float(table[mismatched].mean()), float(clip_similarity(images, texts).mean())


def anchored(similarity: Array, anchors: tuple[float, float]) -> Array:
    """Similarity on the scale where 0 is a wrong caption and 1 is the real picture.

    >>> anchored(np.array([0.10, 0.20, 0.30]), (0.10, 0.30)).round(3).tolist()
    [0.0, 0.5, 1.0]
    """
    wrong, right = anchors
    if right <= wrong:
        raise ValueError(f"real pairs ({right:.4f}) score no higher than wrong ones ({wrong:.4f})")
    return (similarity - wrong) / (right - wrong)


def is_flat(picture: Image) -> bool:
    """Whether every pixel has the same colour: a black picture, a failed decode."""
    return all(low == high for low, high in picture.convert("RGB").getextrema())  # type: ignore[misc]
