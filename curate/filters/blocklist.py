"""Find listed words and phrases in captions, ignoring case."""

# pyright: reportAttributeAccessIssue=false
from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc  # generates its functions on import

from curate.filters.text import Text, hashes, is_word_character, mark
from curate.run.schema import UserError

KEY = "filters.caption.blocklist"
# Scripts without spaces between words: their words are searched for inside runs of letters too.
_WITHOUT_SPACES = ("CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR")


def read(blocklist: list[str] | str) -> list[str]:
    """The words, case-folded and sorted; a string is the path of a UTF-8 file, one word or phrase a line.

    Raises:
        FileNotFoundError: there is no such file.
        UserError: the list is empty, or the file is not UTF-8 text.
    """
    lines = blocklist
    if isinstance(blocklist, str):
        path = Path(blocklist).expanduser()
        if not path.is_file():
            raise FileNotFoundError(
                f"{KEY}={blocklist}: no such file (looked for {path.resolve()}); type {KEY}=FILE, "
                f"one word a line, or {KEY}=[word,another]"
            )
        try:
            lines = path.read_text(encoding="utf-8-sig").splitlines()
        except UnicodeDecodeError as error:
            raise UserError(f"{KEY}={blocklist} is not UTF-8 text ({error}); convert it") from error
    words = {" ".join(line.casefold().split()) for line in lines} - {""}
    if not words:
        raise UserError(f"{KEY}={blocklist} has no words; type {KEY}=null for no blocklist")
    return sorted(words)


def matches(captions: pa.Array, words: list[str]) -> np.ndarray:
    """Which of N captions contain one of the case-folded ``words``: mask (N,).

    An entry matches whole words in sequence; punctuation between or around them does not matter.
    An entry in a script without spaces, or without any letter or digit, matches as a substring.
    """
    folded = _casefold(captions)
    substrings = [word for word in words if _is_substring(word)]
    found = _whole_words(folded, [word for word in words if not _is_substring(word)])
    if substrings:
        pattern = "|".join(re.escape(word) for word in substrings)
        inside = pc.match_substring_regex(folded, pattern)
        found |= inside.to_numpy(zero_copy_only=False)
    return found


def _whole_words(captions: pa.Array, phrases: list[str]) -> np.ndarray:
    """Match phrases by 64-bit hashes of their words, long enough that collisions are negligible."""
    wanted = defaultdict(list)
    for text in Text.blocks(pa.array(phrases, pa.string())):
        words, starts = text.words(mark(text.codes, _is_inside))
        for length, phrase in zip(
            np.diff(starts), hashes(words, starts[:-1], starts[1:]), strict=True
        ):
            wanted[int(length)].append(phrase)
    found = [np.zeros(0, bool)]
    for text in Text.blocks(captions):
        words, starts = text.words(mark(text.codes, _is_inside))
        owner = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
        holds = np.zeros(len(starts) - 1, bool)
        for length, known in wanted.items():
            first = np.arange(max(0, len(words) - length + 1))
            first = first[owner[first] == owner[first + length - 1]]
            hits = np.isin(hashes(words, first, first + length), known)
            holds[owner[first[hits]]] = True
        found.append(holds)
    return np.concatenate(found)


def _is_inside(character: str) -> bool:
    return is_word_character(character) or character == "_"


def _is_substring(word: str) -> bool:
    names = [unicodedata.name(c, "") for c in word if _is_inside(c)]
    return not names or any(name.startswith(_WITHOUT_SPACES) for name in names)


def _casefold(captions: pa.Array) -> pa.Array:
    """``str.casefold``, which Arrow lacks; for ASCII captions lower case is the same and faster."""
    lower = pc.utf8_lower(captions)
    rest = pc.invert(pc.string_is_ascii(captions))
    folded = [caption.casefold() for caption in captions.filter(rest).to_pylist()]
    return pc.replace_with_mask(lower, rest, pa.array(folded, lower.type))
