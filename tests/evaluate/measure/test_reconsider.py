"""Pairs whose caption gains nothing are listed, wrong ones first; none where captions help nowhere."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from evaluate.measure.reconsider import MOST_LISTED, Gains, candidates, listed, reason, unknown


def gains(gain, similarity=None, reference=None):
    gain = np.asarray(gain, float)
    count = len(gain)
    similarity = np.full(count, np.nan) if similarity is None else np.asarray(similarity, float)
    keys = [f"k{i:03d}" for i in range(count)]
    below = np.where(np.isnan(similarity), np.nan, 0.02)
    typical = np.array([0.1] * 40 if reference is None else reference)
    others = [f"r{i}" for i in range(len(typical))]
    return Gains(
        keys, [f"caption {i}" for i in range(count)], keys, gain, similarity, below, typical, others
    )


def planted(seed=0, wrong=20, right=200):
    """Wrong pairs gain nothing on average and are less similar; the first ``wrong`` ones."""
    rng = np.random.default_rng(seed)
    gain = np.concatenate([rng.normal(-0.05, 0.04, wrong), rng.normal(0.08, 0.05, right)])
    similarity = np.concatenate([rng.normal(0.22, 0.02, wrong), rng.normal(0.27, 0.03, right)])
    return gains(gain, similarity)


def test_planted_wrong_captions_come_first():
    found = [listed(planted(seed)) for seed in range(10)]
    assert np.mean([index < 20 for one in found for index in one[:10]]) >= 0.85
    assert min(len(set(one) & set(range(20))) for one in found) >= 12


def test_gain_and_similarity_both_count():
    both, found = planted(), [0.0, 0.0]
    for seed in range(5):
        one = planted(seed)
        alone = replace(one, similarity=np.full(220, np.nan))
        for place, of in enumerate((one, alone)):
            found[place] += sum(index < 20 for index in listed(of)[:18])
    assert found[0] > found[1]
    assert len(listed(both)) == int((both.gain <= 0).sum())


def test_nothing_is_listed_where_captions_help_nowhere():
    half = [-0.1, 0.2] * 20
    assert listed(gains(half, reference=half)) == []
    assert unknown(gains(half, reference=half)) == (
        "captions help this model too little to say of a single one that it does not (of 40 groups of "
        "training pictures, 20 have a lower loss with their captions)"
    )
    assert unknown(gains(half, reference=[0.1] * 15)).startswith("15 groups of training pictures")
    assert unknown(gains(half, reference=[0.1] * 30 + [-9.0] * 10)) == ""
    assert len(listed(gains(half))) == 20


def test_siblings_are_one_group_of_the_reference():
    found = replace(gains([-0.1] * 40, reference=[0.1] * 40), reference_groups=["same"] * 40)
    assert unknown(found).startswith("1 groups")


def test_at_most_so_many_are_listed():
    found = listed(gains([0.5] * 300 + [-0.01] * (MOST_LISTED + 20)))
    assert len(found) == MOST_LISTED


def test_the_order_is_that_of_the_ranks():
    gain = [0.2] * 40 + [-0.3, -0.1, 0.0]
    similarity = [0.3] * 40 + [0.29, 0.21, 0.35]
    # ranks of the gains 0, 1/43, 2/43; of the similarities 1/43, 0, 42/43
    assert listed(gains(gain, similarity)) == [40, 41, 42]
    assert listed(gains(gain)) == [40, 41, 42]


def test_the_least_similar_are_measured_and_unknown_ones_by_their_hash():
    similarity = np.array([0.5, np.nan, 0.1, 0.3, np.nan])
    keys = list("abcde")
    assert candidates(keys, similarity, [9, 8, 7, 6, 5], 3) == [4, 1, 2]
    assert candidates(keys, similarity, [0, 0, 0, 0, 0], 9) == [1, 4, 2, 3, 0]


@pytest.mark.parametrize(
    ("similarity", "end"),
    [
        (None, "(typical: 10.0 % lower)"),
        (
            [0.2] * 41,
            "(typical: 10.0 % lower); CLIP similarity 0.200, higher than that of 2 % of the training pictures",
        ),
    ],
)
def test_the_reason_is_in_words(similarity, end):
    said = reason(gains([0.1] * 40 + [-0.05], similarity), 40)
    assert said.startswith("its caption does not help: the loss is 5.0 % higher with it than with")
    assert said.endswith(end)
