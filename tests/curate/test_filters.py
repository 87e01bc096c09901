"""One case for each reason, and the boundaries."""

import numpy as np
import pandas as pd
import pytest

from curate.config import (
    CaptionFilterConfig,
    ClipSimilarityConfig,
    FiltersConfig,
    ImageFilterConfig,
)
from curate.filters import most_similar, rules


def pair(**changes):
    row = {
        "key": "a",
        "caption_index": 0,
        "has_caption": True,
        "caption": "a small cat",
        "width": 400,
        "height": 300,
        "clip_similarity": 0.3,
        "duplicate_group": "g",
    }
    return row | changes


def frame(*rows):
    return pd.DataFrame(list(rows)).astype({"clip_similarity": np.float32})


def first_reason(config, row, cut=None):
    pairs = frame(row)
    for rule in rules(config, cut):
        reason = rule.reasons(pairs).iloc[0]
        if reason:
            assert reason.startswith(rule.name)
            return reason
    return ""


STRICT = FiltersConfig(
    image=ImageFilterConfig(min_side_px=200, max_aspect=3.0),
    caption=CaptionFilterConfig(min_characters=6, max_characters=20, min_words=2, max_words=4),
)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, ""),
        ({"has_caption": False, "caption": ""}, "no_caption"),
        ({"caption": ""}, "empty_caption"),
        ({"height": 200}, ""),
        ({"height": 199}, "min_side_px < 200"),
        ({"width": 199}, "min_side_px < 200"),
        ({"width": 900}, ""),
        ({"width": 901}, "aspect > 3"),
        ({"height": 1201}, "aspect > 3"),
        ({"caption": "two w"}, "caption_characters < 6"),
        ({"caption": "x " * 10 + "x"}, "caption_characters > 20"),
        ({"caption": "single"}, "caption_words < 2"),
        ({"caption": "a b c d eeee"}, "caption_words > 4"),
        ({"clip_similarity": np.nan}, "no_similarity: CLIP gave no number"),
        ({"clip_similarity": 0.28}, ""),
        ({"clip_similarity": 0.279999}, "clip_similarity < 0.28"),
    ],
)
def test_reasons_and_boundaries(changes, reason):
    assert first_reason(STRICT, pair(**changes), cut=0.28) == reason


def test_nothing_asked_for_nothing_dropped():
    assert first_reason(FiltersConfig(), pair(width=1, clip_similarity=-1.0)) == ""


@pytest.mark.parametrize("fraction", [0.1, 0.29, 0.3, 0.5, 1.0])
@pytest.mark.parametrize("count", [1, 10, 100])
def test_fraction_is_exact_whatever_the_ties(fraction, count):
    rng = np.random.default_rng(0)
    scores = rng.choice([0.1, 0.2, 0.3], count)
    pairs = frame(*(pair(key=f"{i:03d}", clip_similarity=s) for i, s in enumerate(scores)))
    reasons = most_similar(fraction).reasons(pairs)
    kept = pairs[reasons == ""]
    assert len(kept) == max(1, int(fraction * count + 1e-9))
    dropped = pairs[reasons != ""]
    if len(dropped):
        assert kept["clip_similarity"].min() >= dropped["clip_similarity"].max()
    shuffled = pairs.sample(frac=1, random_state=1)
    again = shuffled[most_similar(fraction).reasons(shuffled) == ""]
    assert set(again["key"]) == set(kept["key"])


def test_the_best_copy_of_a_duplicate_stays():
    pairs = frame(
        pair(key="a", clip_similarity=0.2),
        pair(key="b", clip_similarity=0.3),
        pair(key="b", clip_similarity=0.1, caption_index=1),
        pair(key="c", clip_similarity=0.3),
        pair(key="d", duplicate_group="other"),
    )
    duplicate = rules(FiltersConfig(), None)[-1]
    assert duplicate.reasons(pairs).tolist() == ["duplicate of b", "", "", "duplicate of b", ""]


@pytest.mark.parametrize(
    ("make", "key"),
    [
        (lambda: ClipSimilarityConfig(minimum=2.8), "filters.clip_similarity.minimum=2.8"),
        (lambda: ClipSimilarityConfig(fraction=0), "filters.clip_similarity.fraction=0"),
        (lambda: ClipSimilarityConfig(minimum=0.3, fraction=0.3), "fraction=null"),
        (lambda: ImageFilterConfig(max_aspect=0.5), "filters.image.max_aspect=0.5"),
        (lambda: CaptionFilterConfig(min_words=5, max_words=4), "filters.caption.max_words=4"),
    ],
)
def test_values_out_of_range_name_their_key(make, key):
    with pytest.raises(ValueError, match=key):
        make()
