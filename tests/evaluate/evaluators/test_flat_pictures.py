"""One pixel that differs is enough for a picture not to count as blank."""

from __future__ import annotations

from PIL import Image

from evaluate.evaluators.flat_pictures import is_flat


def test_flat_pictures():
    assert is_flat(Image.new("RGB", (8, 8), "navy"))
    almost = Image.new("RGB", (8, 8))
    almost.putpixel((3, 3), (0, 0, 1))
    assert not is_flat(almost)
