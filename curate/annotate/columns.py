"""Find columns that a filter names and neither the data set nor any measure provides."""

from __future__ import annotations

from collections.abc import Iterable

from curate.annotate.table import COLUMNS
from curate.measures import registry


def unknown_columns(
    named: Iterable[str], offered: Iterable[str], heads: Iterable[str]
) -> list[str]:
    """The columns that no pair will have.

    Args:
        named: the columns that the rules name.
        offered: those of the data set.
        heads: the names of the models on CLIP's embeddings; each fills ``head_<name>``.
    """
    known = {*offered, *COLUMNS, *registry.COLUMNS, *(f"head_{name}" for name in heads)}
    return [name for name in named if name not in known]
