"""All rules of a configuration in the order in which they are applied, the cheap ones first."""

from __future__ import annotations

from typing import TYPE_CHECKING

from curate.filters import caption, captions, columns, consent, image, language, similarity
from curate.filters.rule import Rule

if TYPE_CHECKING:
    from curate.filters.config import FiltersConfig


def rules(config: FiltersConfig, cut: float | None) -> list[Rule]:
    """The rules that the configuration switches on, except duplicates, see ``decide.duplicates``.

    Args:
        config: the settings of all rules.
        cut: the lowest CLIP similarity to keep; None for no absolute cut.
    """
    return [
        Rule("no_caption", "no_caption", lambda pairs: ~pairs["has_caption"]),
        Rule("empty_caption", "empty_caption", lambda pairs: pairs["caption"] == ""),
        *consent.rules(config.consent),
        *image.rules(config.image),
        *caption.rules(config.caption),
        *language.rules(config.language),
        *columns.rules(config.columns),
        *caption.data_set_rules(config.caption),
        *similarity.rules(config.clip_similarity, cut),
        *captions.rules(config.captions),
    ]
