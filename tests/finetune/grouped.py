"""Held-out pictures drawn by duplicate group, as a curation's split draws them."""

from __future__ import annotations

import numpy as np

# Of the demo's 135 groups: most have one picture, a few have many; a design effect of about 4.
SIZES = np.array([1] * 85 + [2] * 18 + [3] * 10 + [6] * 14 + [12] * 5 + [20] * 3)


def drawn_groups(rng: np.random.Generator, pictures: int) -> list[str]:
    """The group of each of ``pictures``, a random part of a split of at least twice as many."""
    held_out: list[str] = []
    while len(held_out) < 2 * pictures:
        number = len(set(held_out))
        held_out += [str(number)] * int(rng.choice(SIZES))
    return [held_out[index] for index in rng.permutation(len(held_out))[:pictures]]
