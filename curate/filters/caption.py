"""Rules on the words of a caption."""

from __future__ import annotations

import pandas as pd

from curate.filters.config import CaptionFilterConfig
from curate.filters.rule import Rule, within


def rules(config: CaptionFilterConfig) -> list[Rule]:
    """Those that the configuration switches on."""
    return [
        *within("caption_characters", characters, config.min_characters, config.max_characters),
        *within("caption_words", words, config.min_words, config.max_words),
    ]


def characters(pairs: pd.DataFrame) -> pd.Series:
    """Code points."""
    return pairs["caption"].str.len()


def words(pairs: pd.DataFrame) -> pd.Series:
    """Runs of anything but white space."""
    return pairs["caption"].str.count(r"\S+")
