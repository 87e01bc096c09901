"""Sharpness, brightness and information of an image, as cleanvision defines them.

cleanvision 0.3.7 (Apache-2.0, cleanvision.readthedocs.io) calls an image blurry, dark, light or of
low information where one of its scores is below a threshold. The columns here are those scores, or
what they are made of. Its defaults as filters:

| cleanvision's issue (threshold) | as a filter                             |
|---------------------------------|-----------------------------------------|
| blurry (0.29)                   | ``filters.columns.sharpness.minimum=0.29``    |
| dark (0.32)                     | ``filters.columns.brightness_p99.minimum=0.32`` |
| light (0.05)                    | ``filters.columns.brightness_p5.maximum=0.95``  |
| low information (0.30)          | ``filters.columns.information.minimum=0.30``  |
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from curate.measures.measure import ImageMeasure

if TYPE_CHECKING:
    from PIL.Image import Image

COLUMNS = ("sharpness", "brightness", "brightness_p5", "brightness_p99", "information")

_WEIGHTS = (0.241, 0.691, 0.068)  # of R, G, B: Finley (2006), the HSP colour model
_SIDE_PX = 64  # sharpness is measured on a copy this large, or it would depend on the resolution
_MOST_PIXELS = 1 << 20  # percentiles are taken over no more
_FULL_BITS = 10  # of entropy; photographs have 6 to 8


def measure(image: Image) -> dict[str, float]:
    """Five numbers of 0 ... 1 for an RGB image.

    - ``sharpness``: ``min(1, s(e) + t)`` with ``s(x) = 1 - exp(-x / 100)``, of a grey copy with a
      longer side of at most 64 px. ``e`` is the standard deviation of its edges (eight times each pixel
      minus its neighbours, clipped to 0 ... 255; the outermost pixels stay as they are); ``t = s(h)``
      where that exceeds 0.18, else 0, for the standard deviation ``h`` of the copy's 256 histogram
      counts.
    - ``brightness``: ``sqrt(.241 R^2 + .691 G^2 + .068 B^2) / 255`` of the mean R, G and B;
      ``brightness_p5`` and ``brightness_p99`` are percentiles of the same over the pixels (over
      every second or third of rows and columns where there are more than a million).
    - ``information``: entropy in bits of the three channels' joint 768-bin histogram, divided by 10.
    """
    import numpy as np
    from PIL import ImageStat

    step = math.ceil(math.sqrt(image.width * image.height / _MOST_PIXELS))
    pixels = np.asarray(image)[::step, ::step].astype(np.float32)
    squares = (pixels.reshape(-1, 3) ** 2) @ np.array(_WEIGHTS, np.float32)
    low, high = np.percentile(np.sqrt(squares), (5, 99)) / 255
    mean = np.sqrt(np.square(ImageStat.Stat(image).mean) @ np.array(_WEIGHTS)) / 255
    return {
        "sharpness": _sharpness(image),
        "brightness": float(mean),
        "brightness_p5": float(low),
        "brightness_p99": float(high),
        "information": min(1.0, image.entropy() / _FULL_BITS),
    }


def _sharpness(image: Image) -> float:
    import numpy as np
    from PIL import ImageFilter

    shrink = max(1.0, max(image.size) / _SIDE_PX)
    if shrink > 1:
        image = image.resize(
            (max(1, int(image.width // shrink)), max(1, int(image.height // shrink)))
        )
    grey = image.convert("L")
    edges = float(np.std(np.asarray(grey.filter(ImageFilter.FIND_EDGES), np.float64)))
    spread = 1 - np.exp(-np.std(grey.histogram()) / 100)
    return float(min(1, 1 - np.exp(-edges / 100) + (spread if spread > 0.18 else 0)))


MEASURE = ImageMeasure("quality", COLUMNS, measure)
