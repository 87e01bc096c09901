"""Which columns a rule may name."""

from __future__ import annotations

from collections.abc import Iterable

from curate.annotate.table import COLUMNS
from curate.measures import registry


def unheard_of(wanted: Iterable[str], offered: Iterable[str], heads: Iterable[str]) -> list[str]:
    """Which of the wanted columns neither a data set's ``offered`` ones hold, nor measures, nor heads."""
    known = {*offered, *COLUMNS, *registry.COLUMNS, *(f"head_{name}" for name in heads)}
    return [name for name in wanted if name not in known]
