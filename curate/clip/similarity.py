"""The similarity of a pair: the cosine of its two CLIP embeddings."""

from __future__ import annotations

import numpy as np


def cosine(image: np.ndarray, text: np.ndarray) -> float:
    """The dot product of two unit vectors (D,), in double precision and rounded to six digits."""
    return round(float(image.astype(np.float64) @ text.astype(np.float64)), 6)
