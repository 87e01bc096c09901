"""All rules of a configuration in the order in which they are applied, the cheap ones first.

First those that judge a pair by its own row, then those that compare it with others, see ``decide.judgement``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from curate.filters import caption, columns, consent, image, language
from curate.filters.rule import Rule

if TYPE_CHECKING:
    from curate.filters.columns import Exactness
    from curate.filters.config import FiltersConfig


def rules_of_rows(config: FiltersConfig, exactness: Exactness | None = None) -> list[Rule]:
    """The rules of rows that the configuration switches on.

    Args:
        config: the settings of all rules.
        exactness: see ``columns.rules``.
    """
    return [
        Rule("no_caption", "no_caption", lambda pairs: ~pairs["has_caption"]),
        Rule("empty_caption", "empty_caption", lambda pairs: pairs["caption"] == ""),
        *consent.rules(config.consent),
        *image.rules(config.image),
        *caption.rules(config.caption),
        *language.rules(config.language),
        *columns.rules(config.columns, exactness),
    ]
