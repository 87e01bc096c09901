"""Which part of a picture was encoded, as models know it that are conditioned on sizes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Crop:
    """How a picture was resized and cropped; all in pixels, all heights first.

    Attributes:
        original: height and width of the upright picture before it was resized.
        corner: top and left of what was cut out, in the resized picture.
        target: height and width of what was cut out, which is what was encoded.
    """

    original: tuple[int, int]
    corner: tuple[int, int]
    target: tuple[int, int]

    @classmethod
    def square(cls, size: tuple[int, int], side: int) -> Crop:
        """Of ``finetune.cache.encode.to_square``, for a picture of a width and a height.

        It resizes and crops in one step, at the very middle; the corner is that rounded to whole pixels.

        >>> Crop.square((3000, 2000), 1024)
        Crop(original=(2000, 3000), corner=(0, 256), target=(1024, 1024))
        """
        width, height = size
        shorter = min(size)
        top, left = (round((length - shorter) * side / shorter / 2) for length in (height, width))
        return cls((height, width), (top, left), (side, side))

    @classmethod
    def whole(cls, side: int) -> Crop:
        """Of a square picture that was neither resized nor cropped, as new pictures are asked for."""
        return cls.square((side, side), side)
