"""Which part of a picture is encoded, and how it is cut out; models that are conditioned on sizes are given it."""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image, ImageOps

CENTRE = (0.5, 0.5)


@dataclass(frozen=True, slots=True)
class Crop:
    """How a picture was resized and cropped; all in pixels, all heights first.

    Attributes:
        original: height and width of the upright picture before it was resized.
        corner: top and left of what was cut out, in the resized picture; of a mirrored one in the mirrored
            picture, since that is what the model is shown.
        target: height and width of what was cut out, which is what was encoded.
        place: which share of what is cut away goes at the top and at the left of the picture as it was, before it
            was mirrored.
        mirrored: whether left and right change places.
    """

    original: tuple[int, int]
    corner: tuple[int, int]
    target: tuple[int, int]
    place: tuple[float, float] = CENTRE
    mirrored: bool = False

    @classmethod
    def of(
        cls,
        size: tuple[int, int],
        target: tuple[int, int],
        place: tuple[float, float] = CENTRE,
        mirrored: bool = False,
    ) -> Crop:
        """The largest part of a picture that has the shape of ``target``, resized to that.

        It is resized and cropped in one step; the corner is rounded to whole pixels.

        Args:
            size: the picture's width and height.
            target, place, mirrored: see above.

        >>> Crop.of((3000, 2000), (768, 1024), place=(0.5, 1.0), mirrored=True).corner
        (0, 0)
        """
        width, height = size
        down, across = place
        # How much longer the resized picture is than the target, one of the two is 0.
        spare = width * target[0] - height * target[1]
        spare_height, spare_width = max(-spare, 0) / width, max(spare, 0) / height
        left = spare_width * (1 - across if mirrored else across)
        corner = (round(spare_height * down), round(left))
        return cls((height, width), corner, target, place, mirrored)

    @classmethod
    def square(cls, size: tuple[int, int], side: int) -> Crop:
        """The shorter side resized to ``side`` pixels, at the very middle, for a picture of a width and a height.

        >>> Crop.square((3000, 2000), 1024).corner
        (0, 256)
        """
        return cls.of(size, (side, side))

    @classmethod
    def whole(cls, side: int) -> Crop:
        """Of a square picture that was neither resized nor cropped, as new pictures are asked for."""
        return cls.square((side, side), side)

    def cut(
        self, image: Image.Image, method: Image.Resampling = Image.Resampling.BICUBIC
    ) -> Image.Image:
        """Cut this part out of a picture, or out of another one that shows the same place, such as its mask.

        Args:
            image: upright; of any size, if it has the picture's shape.
            method: how it is resized, antialiased where the method is.
        """
        height, width = self.target
        down, across = self.place
        part = ImageOps.fit(image, (width, height), method=method, centering=(across, down))
        return ImageOps.mirror(part) if self.mirrored else part


def to_square(image: Image.Image, resolution: int) -> Image.Image:
    """The shorter side resized to ``resolution`` pixels (bicubic, antialiased), the centre cropped."""
    return Crop.square(image.size, resolution).cut(image)
