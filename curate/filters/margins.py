"""How far kept pairs are inside the bounds of the rules that kept them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from curate.filters import caption, columns, image, similarity
from curate.run.schema import UserError

if TYPE_CHECKING:
    import pandas as pd

    from curate.filters.config import FiltersConfig


def margins(config: FiltersConfig, cut: float | None, pairs: pd.DataFrame) -> pd.DataFrame:
    """For each rule with a bound, how far each pair is inside of it, in the unit of what the rule measures.

    Rules that look at more than ``pairs`` holds are left out: those that count a caption in the whole data
    set, or need a column that is not there.

    Args:
        config: the settings of all rules.
        cut: the lowest CLIP similarity that was kept; None where there was none.
        pairs: ``caption, width, height, bytes, clip_similarity`` and other columns of the ledger.

    Returns:
        One column a rule, named like it, with the index of ``pairs``; the smaller margin of two bounds.
    """
    import pandas as pd

    listed = replace(config.caption, blocklist=None)  # its file may be elsewhere by now
    rules = [
        *image.rules(config.image),
        *caption.rules(listed),
        *columns.rules(config.columns),
        *similarity.rules(cut),
    ]
    found: dict[str, pd.Series] = {}
    for rule in rules:
        if rule.margin is None:
            continue
        try:
            margin = rule.margin(pairs).astype("float64")
        except (KeyError, UserError):  # no such column
            continue
        before = found.get(rule.name, margin)
        found[rule.name] = margin.combine(before, min)
    return pd.DataFrame(found, index=pairs.index)
