"""Hashes that identify an image: of its pixels, and perceptual ones of it and of its mirror image."""

from __future__ import annotations

import hashlib
from functools import cache

import numpy as np
from PIL import Image

PIXELS_DIGITS = 16  # of ``pixels_sha256``: enough to tell the images of any data set apart

# 3.5 times a term's standard deviation from rounding the 32 x 32 greys, sqrt(32 * 32 / 4 / 12).
_ROUNDING = 16.0


def pixels_sha256(image: Image.Image) -> str:
    """Hex SHA-256 of size and RGB pixels: equal for two files with exactly the same pixels."""
    digest = hashlib.sha256(f"{image.width}x{image.height}:".encode())
    digest.update(image.tobytes())
    return digest.hexdigest()


def phashes(image: Image.Image) -> tuple[str, str]:
    """Perceptual hash of an image and of its mirror image, each 64 bits in hex.

    As Zauner (2010), "Implementation and Benchmarking of Perceptual Image Hash Functions": a bit says
    whether one of the 8 x 8 lowest DCT terms of a 32 x 32 grey copy exceeds their median; here, by
    ``_ROUNDING``. Every second term of a drawing with two equal halves is 0, and so is the median: without
    the margin, rounding would decide half of its bits. With it, only the other half tells such drawings
    apart: among 1,923 of OpenMoji 1,068 pairs are within 4 bits (without the margin 216), but only 3 %
    are further than that from their own JPEG of quality 75 (without it 16 %).
    """
    grey = np.asarray(image.convert("L").resize((32, 32), Image.Resampling.LANCZOS), np.float64)
    basis = _dct_basis()
    low = basis @ grey @ basis.T
    mirrored = low * np.where(np.arange(8) % 2, -1, 1)  # a mirror changes the sign of odd waves
    return _exceeding_median(low), _exceeding_median(mirrored)


def _exceeding_median(terms: np.ndarray) -> str:
    return np.packbits((terms > np.median(terms) + _ROUNDING).ravel()).tobytes().hex()


@cache
def _dct_basis() -> np.ndarray:
    """The 8 lowest rows of the 32-point DCT-II, (8, 32)."""
    frequency, position = np.arange(8)[:, None], np.arange(32)[None, :]
    return np.cos(np.pi * frequency * (2 * position + 1) / 64)
