"""Rules on the language of a caption."""

from __future__ import annotations

from curate.filters.config import LanguageFilterConfig
from curate.filters.rule import Rule


def rules(config: LanguageFilterConfig) -> list[Rule]:
    """Those that the configuration switches on; they need the column ``language``."""
    if config.accepted is None:
        return []
    accepted = set(config.accepted)
    return [
        Rule(
            "language",
            f"language is not {' or '.join(config.accepted)}",
            lambda pairs: ~pairs["language"].isin(accepted),
        )
    ]
