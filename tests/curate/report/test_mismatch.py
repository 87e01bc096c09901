"""The estimate of wrong captions, on mixtures with a known share of them."""

import numpy as np
import pytest

from curate.decide.shuffled_captions import Null
from curate.report import mismatch
from tests.curate.small_ledgers import counted

NULL_MEAN, TRUE_MEAN, SPREAD = 0.20, 0.32, 0.05  # 2.4 spreads apart, about as OpenAI's B/32 on COCO


def estimate(drawn, null):
    return mismatch.estimate(counted(drawn), null)


def mixture(share: float, pairs: int, seed: int, distance: float = TRUE_MEAN - NULL_MEAN):
    """Similarities, which of them are wrong, and the null."""
    rng = np.random.default_rng(seed)
    wrong = rng.random(pairs) < share
    drawn = rng.normal(NULL_MEAN + np.where(wrong, 0, distance), SPREAD)
    null = rng.normal(NULL_MEAN, SPREAD, 4 * min(pairs, 20_000))
    return drawn, wrong, Null(np.sort(null).astype(np.float32))


@pytest.mark.parametrize("share", [0.0, 0.02, 0.2, 0.5])
@pytest.mark.parametrize("pairs", [600, 20_000])
def test_the_interval_covers_the_planted_share(share, pairs):
    held = 0
    for seed in range(20):
        drawn, wrong, null = mixture(share, pairs, seed)
        found = estimate(drawn, null).share
        held += found.low <= wrong.mean() <= found.high
    assert held >= 18


def test_more_data_narrow_the_interval_around_the_truth():
    few, many = (estimate(*mixture(0.2, n, 0)[::2]).share for n in (600, 100_000))
    assert many.value == pytest.approx(0.2, abs=0.02)
    assert many.high - many.low < 0.06 < few.high - few.low


def test_the_wrong_captions_a_cut_keeps_are_the_planted_ones():
    drawn, wrong, null = mixture(0.2, 20_000, 3)
    found = estimate(drawn, null)
    for cut in (0.2, 0.25, 0.28, 0.3):
        above = drawn >= cut
        kept = found.wrong_kept(null, cut, int(above.sum()))
        planted = (above & wrong).sum()
        assert kept.low <= planted <= kept.high
        assert kept.value == pytest.approx(planted, rel=0.15)


def test_no_more_are_wrong_than_are_kept():
    drawn, _, null = mixture(0.9, 600, 0)
    wrong = estimate(drawn, null).wrong_kept(null, -1.0, 10)
    assert wrong.value == wrong.high == 10


@pytest.mark.parametrize("distance", [0.02, 0.05, 0.08])
def test_the_upper_end_holds_for_a_weak_clip(distance):
    for seed in range(20):
        drawn, wrong, null = mixture(0.2, 5_000, seed, distance)
        assert estimate(drawn, null).share.high > wrong.mean()


def test_a_blind_clip_gives_no_estimate():
    drawn, _, null = mixture(0.1, 2_000, 0, distance=0.0)
    assert not estimate(drawn, null).is_known
    assert estimate(*mixture(0.1, 2_000, 0)[::2]).is_known


def test_without_pairs_or_a_null_there_is_no_estimate():
    assert estimate(np.ones(3), Null(np.zeros(0, np.float32))) is None
    assert estimate(np.zeros(0), Null(np.ones(3, np.float32))) is None


def test_the_tail_shrinks_until_few_true_pairs_are_in_it():
    drawn, wrong, null = mixture(0.2, 100_000, 0, distance=0.06)
    found = estimate(drawn, null)
    assert found.tail < 0.2
    # A tail of half the null would give 0.38.
    assert found.share.value == pytest.approx(wrong.mean(), abs=0.05)
    assert found.share.low < wrong.mean() < found.share.high
