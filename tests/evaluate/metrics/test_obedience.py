"""Agreement of edges in closed form: in place, near, in part, none."""

from __future__ import annotations

import math

import numpy as np
import pytest

from evaluate.metrics.obedience import agreement


def lines(*columns: int, side: int = 64) -> np.ndarray:
    """Edges that are whole columns."""
    found = np.zeros((side, side), bool)
    found[:, list(columns)] = True
    return found


@pytest.mark.parametrize(
    ("drawn", "expected"),
    [
        ((10, 40), 1),
        ((11, 39), 1),  # a pixel beside is near enough of 64
        ((13, 43), 0),
        ((10,), 2 * 1 * 0.5 / 1.5),
        ((10, 40, 20, 30), 2 * 0.5 * 1 / 1.5),
        ((10, 20), 0.5),
        ((), 0),
    ],
)
def test_edges_of_two_lines(drawn, expected):
    assert agreement(lines(*drawn), lines(10, 40)) == pytest.approx(expected)


def test_near_grows_with_the_picture_and_no_edges_are_no_condition():
    assert agreement(lines(105, side=512), lines(100, side=512)) == 1  # 5.4 px
    assert agreement(lines(106, side=512), lines(100, side=512)) == 0
    assert math.isnan(agreement(lines(3), lines()))
    with pytest.raises(ValueError, match="one shape"):
        agreement(lines(3), lines(3, side=32))
