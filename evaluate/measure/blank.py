"""Which pictures are of one colour, a sign that the model that drew them broke down."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image


def is_flat(picture: Image) -> bool:
    """Whether every pixel has the same colour, such as a black picture or a failed decode."""
    return all(low == high for low, high in picture.convert("RGB").getextrema())  # type: ignore[misc]
