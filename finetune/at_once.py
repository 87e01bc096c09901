"""How much is computed at once by default, so that it fits into the memory of a GPU of 12 GB.

Memory grows with the pixels: a model of 512 px gets a sixteenth of the batch of one of 128 px. No result
depends on it beyond rounding.
"""

from __future__ import annotations

LOSSES = 64  # of pictures up to 128 px
PICTURES = 16
_SIDE = 128


def losses_at_once(resolution: int) -> int:
    """Forward passes of the U-Net at a time, without gradients.

    >>> [losses_at_once(resolution) for resolution in (64, 128, 256, 512, 768, 1024)]
    [64, 64, 16, 4, 1, 1]
    """
    return max(1, min(LOSSES, LOSSES * _SIDE**2 // resolution**2))


def pictures_at_once(resolution: int) -> int:
    """Pictures drawn at a time: each takes two forward passes, with its caption and without.

    >>> [pictures_at_once(resolution) for resolution in (64, 128, 256, 512, 768, 1024)]
    [16, 16, 8, 2, 1, 1]
    """
    return max(1, min(PICTURES, losses_at_once(resolution) // 2))
