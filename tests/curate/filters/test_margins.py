"""Margins are distances to the bounds that kept a pair, and zero at the bound itself."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from curate.filters.caption import CaptionFilterConfig
from curate.filters.config import FiltersConfig
from curate.filters.image import ImageFilterConfig
from curate.filters.margins import margins
from curate.filters.rules import rules_of_rows
from curate.filters.similarity import rules as similarity_rules

PAIRS = pd.DataFrame(
    {
        "caption": ["a cat", "a cat on a mat", "one two three"],
        "width": [300, 200, 400],
        "height": [200, 200, 200],
        "bytes": [5000, 9000, 5100],
        "clip_similarity": np.float32([0.3, 0.28, 0.5]),
        "punsafe": [0.1, 0.5, np.nan],
    },
    index=[7, 3, 5],
)


def test_margins_of_every_rule_with_a_bound():
    config = FiltersConfig(
        image=ImageFilterConfig(min_side_px=200, max_aspect=2.0, min_bytes=5000, max_bytes=9500),
        caption=CaptionFilterConfig(
            min_words=2, max_words=5, max_tokens=77, max_occurrences=1, blocklist="no-such-file"
        ),
        columns={"punsafe": {"maximum": 0.5, "keep_missing": True}, "gone": {"minimum": 1}},
    )
    found = margins(config, 0.28, PAIRS)
    assert found.index.tolist() == [7, 3, 5]
    assert found["min_side_px"].tolist() == [0, 0, 0]
    assert found["aspect"].tolist() == [0.5, 1.0, 0.0]
    assert found["bytes"].tolist() == [0, 500, 100]  # to the nearer of two bounds
    assert found["caption_words"].tolist() == [0, 0, 1]
    assert found["punsafe"].tolist() == pytest.approx([0.4, 0.0, np.nan], nan_ok=True)
    assert found["clip_similarity"].tolist() == pytest.approx([0.02, 0.0, 0.22], abs=1e-6)
    assert set(found) == {
        "min_side_px", "aspect", "bytes", "caption_words", "punsafe", "clip_similarity",
    }  # fmt: skip


def test_a_margin_is_negative_where_the_rule_drops():
    config = FiltersConfig(
        image=ImageFilterConfig(min_side_px=201, max_aspect=1.4, min_bytes=5001),
        caption=CaptionFilterConfig(min_words=3, max_characters=13),
    )
    rules = [*rules_of_rows(config), *similarity_rules(0.29)]
    bounded = [rule for rule in rules if rule.margin is not None]
    assert len(bounded) == 6
    for rule in bounded:
        assert (rule.margin(PAIRS) < 0).tolist() == rule.drops(PAIRS).tolist()
