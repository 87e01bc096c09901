"""The similarity of a pair: the cosine of its two CLIP embeddings, as these are stored."""

from __future__ import annotations

import numpy as np

STORED = np.float16
"""Embeddings are rounded to it before anything is computed from them, so that what is stored gives the same numbers."""


def rounded(vectors: np.ndarray) -> np.ndarray:
    """Embeddings as they are stored: of any shape, float16."""
    return vectors.astype(STORED)


def unit(stored: np.ndarray) -> np.ndarray:
    """Stored embeddings (N, D) of length one again, which rounding changes by up to a thousandth: float32; zero stays."""
    vectors = stored.astype(np.float64)
    length = np.sqrt((vectors * vectors).sum(axis=1, keepdims=True))
    return (vectors / np.where(length > 0, length, 1)).astype(np.float32)


def cosines(images: np.ndarray, texts: np.ndarray) -> np.ndarray:
    """The similarity of N pairs of stored embeddings (N, D): (N,), in double precision and rounded to six digits.

    Each sum is its own, so that a pair's similarity does not depend on what else is computed.
    """
    images, texts = (np.ascontiguousarray(of, np.float64) for of in (images, texts))
    squares = (images * images).sum(axis=1) * (texts * texts).sum(axis=1)
    products = (images * texts).sum(axis=1)
    return (products / np.sqrt(np.where(squares > 0, squares, 1))).round(6)
