"""A stored picture, read again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image


def read_picture(path: Path) -> Image:
    """A stored picture, RGB."""
    from PIL import Image

    with Image.open(path) as picture:
        return picture.convert("RGB")
