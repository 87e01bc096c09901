"""A picture in 96 bytes: coarse brightness and coarser colour, as evidence that two pictures are the same."""

from __future__ import annotations

import numpy as np
from PIL import Image

LUMA, CHROMA = 8, 4  # cells a side
BYTES = LUMA**2 + 2 * CHROMA**2


def thumbnail(image: Image.Image) -> bytes:
    """Mean Y of 8 x 8 cells, then mean Cb and mean Cr of 4 x 4, each row by row, one byte a cell.

    Y, Cb and Cr are JPEG's (JFIF 1.02, full range), of an RGB ``image`` that is divided evenly.
    """
    small = image.resize((LUMA, LUMA), Image.Resampling.BOX)
    smaller = small.resize((CHROMA, CHROMA), Image.Resampling.BOX).convert("YCbCr")
    cells = [small.convert("YCbCr").getchannel("Y"), *smaller.split()[1:]]
    return b"".join(channel.tobytes() for channel in cells)


def luma(thumbnails: np.ndarray) -> np.ndarray:
    """Of thumbnails (N, ``BYTES``) uint8 the Y of their cells, (N, 64)."""
    return thumbnails[:, : LUMA**2]


def chroma(thumbnails: np.ndarray) -> np.ndarray:
    """Of thumbnails (N, ``BYTES``) uint8 the Cb, then the Cr of their cells, (N, 32)."""
    return thumbnails[:, LUMA**2 :]


def mirrored(thumbnails: np.ndarray) -> np.ndarray:
    """The thumbnails (N, ``BYTES``) of the mirror images, left and right exchanged."""
    count = len(thumbnails)
    bright = luma(thumbnails).reshape(count, LUMA, LUMA)[:, :, ::-1]
    coloured = chroma(thumbnails).reshape(count, 2, CHROMA, CHROMA)[..., ::-1]
    parts = bright.reshape(count, LUMA**2), coloured.reshape(count, 2 * CHROMA**2)
    return np.concatenate(parts, axis=1)
