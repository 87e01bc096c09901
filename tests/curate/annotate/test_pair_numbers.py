"""Which pairs' embeddings are kept, against counting."""

import numpy as np

from curate.annotate.pair_numbers import ENOUGH, draw_hashes, drawn_bits, may_be_drawn, pair_numbers
from curate.decide import draw
from curate.decide.shuffled_captions import MAX_PAIRS


def test_enough_pairs_are_kept_of_any_number():
    assert ENOUGH == 3 * MAX_PAIRS
    for images in (0, 1, ENOUGH, 2 * ENOUGH - 1):
        assert drawn_bits(images) == 0
    for images in (2 * ENOUGH, 10**6, 400_000_000, 5_000_000_000):
        kept = images / 2 ** drawn_bits(images)
        assert ENOUGH <= kept < 2 * ENOUGH


def test_kept_pairs_are_the_first_that_are_drawn():
    numbers = pair_numbers([f"k{n}" for n in range(20_000)], np.zeros(20_000, np.int64))
    assert may_be_drawn(numbers, 0).all()
    for bits in (1, 3, 8):
        kept = np.flatnonzero(may_be_drawn(numbers, bits))
        assert set(draw.drawn(numbers, len(kept), 0)) == set(kept)
        assert abs(len(kept) - 20_000 / 2**bits) < 5 * (20_000 / 2**bits) ** 0.5
        assert (draw_hashes(numbers[kept], 0) >> np.uint64(64 - bits) == 0).all()
