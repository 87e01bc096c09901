"""The optional measures: which there are, their columns, and the versions of the models behind them.

A new measure is a module with a ``MEASURE``, listed in ``MEASURES``. This module is imported to check a
configuration: what it lists must not import numpy, Pillow or a model before a measure is called.
"""

from __future__ import annotations

from collections.abc import Collection
from importlib.metadata import PackageNotFoundError, version

from curate.measures import consent, credentials, language, nsfw, quality, text_share, tokens
from curate.measures.measure import CaptionMeasure, FileMeasure, ImageMeasure

MEASURES: dict[str, ImageMeasure | FileMeasure | CaptionMeasure] = {
    module.MEASURE.name: module.MEASURE  # in the order of their columns
    for module in (quality, nsfw, text_share, consent, credentials, language, tokens)
}
COLUMNS = tuple(column for measure in MEASURES.values() for column in measure.columns)
TEXTS = frozenset(
    column for m in MEASURES.values() if isinstance(m, FileMeasure) for column in m.columns
)
"""Those of ``image_columns`` that hold texts; the others hold numbers."""


def image_measures(names: Collection[str]) -> list[ImageMeasure]:
    """The measures of images' pixels among ``names``."""
    return [m for m in MEASURES.values() if isinstance(m, ImageMeasure) and m.name in names]


def file_measures(names: Collection[str]) -> list[FileMeasure]:
    """The measures of images' encoded bytes among ``names``."""
    return [m for m in MEASURES.values() if isinstance(m, FileMeasure) and m.name in names]


def caption_measures(names: Collection[str]) -> list[CaptionMeasure]:
    """The measures of captions among ``names``."""
    return [m for m in MEASURES.values() if isinstance(m, CaptionMeasure) and m.name in names]


def image_columns(names: Collection[str]) -> list[str]:
    """The columns that the measures of images among ``names`` fill, from pixels or from bytes."""
    found = [*image_measures(names), *file_measures(names)]
    return [column for measure in found for column in measure.columns]


def columns_of_others(names: Collection[str]) -> list[str]:
    """The columns of all measures that are not in ``names``."""
    others = [measure for measure in MEASURES.values() if measure.name not in names]
    return [column for measure in others for column in measure.columns]


def versions(names: Collection[str]) -> dict[str, str]:
    """The installed version of each measure's package; "" where this project computes it by itself."""
    return {name: _version(MEASURES[name].package) for name in names}


def _version(package: str) -> str:
    try:
        return version(package) if package else ""
    except PackageNotFoundError:
        return "missing"  # the measure says what to install when it is called
