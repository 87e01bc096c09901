"""How many tokens a caption has for the CLIP that scores it."""

from __future__ import annotations

from collections.abc import Sequence

from curate.measures.measure import CaptionMeasure, CountTokens


def measure(captions: Sequence[str], count_tokens: CountTokens) -> dict[str, list[int]]:
    """The tokens of each caption's first 10,000 characters with both ends, before the tokenizer truncates."""
    return {"tokens": count_tokens(captions)}


MEASURE = CaptionMeasure("tokens", ("tokens",), measure)
