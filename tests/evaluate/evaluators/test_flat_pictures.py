"""Blank pictures are counted, and one pixel that differs is enough not to be one."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from PIL import Image

from evaluate.evaluators import flat_pictures
from evaluate.evaluators.flat_pictures import is_flat


def test_flat_pictures():
    assert is_flat(Image.new("RGB", (8, 8), "navy"))
    almost = Image.new("RGB", (8, 8))
    almost.putpixel((3, 3), (0, 0, 1))
    assert not is_flat(almost)


def test_the_blank_ones_of_all_drawn_pictures_are_counted(tmp_path):
    drawn = {}
    for row in (0, 2):
        drawn[row] = [tmp_path / f"{row}-{number}.png" for number in range(3)]
        for path in drawn[row]:
            picture = Image.new("RGB", (8, 8))
            picture.putpixel((3, 3), (0, 0, 1))
            picture.save(path)
    Image.new("RGB", (8, 8), "navy").save(drawn[2][1])
    evaluation: Any = SimpleNamespace(drawn=drawn)
    found = dict(flat_pictures.measure(evaluation))["flat_pictures"]
    assert (found.value, found.n) == (1, 6)
