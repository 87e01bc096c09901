"""Sharpness, brightness and information of a picture, as cleanvision defines them.

cleanvision 0.3.7 (Apache-2.0, cleanvision.readthedocs.io) calls a picture blurry, dark, light or of
low information where one of its scores is below a threshold. The columns here are those scores, or
what they are made of, so that its defaults read:

| cleanvision's issue (threshold) | as a filter                             |
|---------------------------------|-----------------------------------------|
| blurry (0.29)                   | ``filters.columns.sharpness.minimum=0.29``    |
| dark (0.32)                     | ``filters.columns.brightness_p99.minimum=0.32`` |
| light (0.05)                    | ``filters.columns.brightness_p5.maximum=0.95``  |
| low information (0.30)          | ``filters.columns.information.minimum=0.30``  |
"""

from __future__ import annotations

import math

import numpy as np
from PIL import Image, ImageFilter, ImageStat

COLUMNS = ("sharpness", "brightness", "brightness_p5", "brightness_p99", "information")

_WEIGHTS = np.array([0.241, 0.691, 0.068])  # of R, G, B: Finley (2006), the HSP colour model
_SIDE_PX = 64  # sharpness is judged on a copy this large, or it would follow the resolution
_MOST_PIXELS = 1 << 20  # that percentiles are taken over
_FULL_BITS = 10  # of entropy; photographs have 6 to 8


def measure(image: Image.Image) -> dict[str, float]:
    """Five numbers of 0 ... 1 for an RGB picture.

    - ``sharpness``: ``min(1, s(e) + t)`` with ``s(x) = 1 - exp(-x / 100)``, of a grey copy with a
      longer side of at most 64 px. ``e`` is the standard deviation of its edges (each pixel times
      eight less its neighbours, clipped to 0 ... 255; the outermost stay as they are); ``t = s(h)`` where that exceeds 0.18, else 0,
      for the standard deviation ``h`` of the copy's 256 histogram counts.
    - ``brightness``: ``sqrt(.241 R^2 + .691 G^2 + .068 B^2) / 255`` of the mean R, G and B;
      ``brightness_p5`` and ``brightness_p99`` are percentiles of the same over the pixels (over
      every second or third of rows and columns where there are more than a million).
    - ``information``: entropy in bits of the three channels' joint 768-bin histogram, by 10.
    """
    step = math.ceil(math.sqrt(image.width * image.height / _MOST_PIXELS))
    pixels = np.asarray(image)[::step, ::step].astype(np.float32)
    squares = (pixels.reshape(-1, 3) ** 2) @ _WEIGHTS.astype(np.float32)
    low, high = np.percentile(np.sqrt(squares), (5, 99)) / 255
    mean = np.sqrt(np.square(ImageStat.Stat(image).mean) @ _WEIGHTS) / 255
    return {
        "sharpness": _sharpness(image),
        "brightness": float(mean),
        "brightness_p5": float(low),
        "brightness_p99": float(high),
        "information": min(1.0, image.entropy() / _FULL_BITS),
    }


def _sharpness(image: Image.Image) -> float:
    shrink = max(1.0, max(image.size) / _SIDE_PX)
    if shrink > 1:
        image = image.resize(
            (max(1, int(image.width // shrink)), max(1, int(image.height // shrink)))
        )
    grey = image.convert("L")
    edges = float(np.std(np.asarray(grey.filter(ImageFilter.FIND_EDGES), np.float64)))
    spread = 1 - np.exp(-np.std(grey.histogram()) / 100)
    return float(min(1, 1 - np.exp(-edges / 100) + (spread if spread > 0.18 else 0)))
