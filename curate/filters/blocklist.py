"""Captions that hold a word of a list, whatever its case."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from curate.command import UserError

KEY = "filters.caption.blocklist"
_START = r"(?:^|[^\p{L}\p{M}\p{N}_])"
_END = r"(?:$|[^\p{L}\p{M}\p{N}_])"
# Scripts that set no spaces: a word of theirs is found within a run of letters as well.
_WITHOUT_SPACES = ("CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR")


def read(blocklist: list[str] | str) -> list[str]:
    """The words, case-folded; a string is the path of a UTF-8 file with one word or phrase a line.

    Raises:
        FileNotFoundError: there is no such file.
        UserError: the list is empty, or the file is no UTF-8 text.
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
            raise UserError(f"{KEY}={blocklist} is no UTF-8 text ({error}); convert it") from error
    words = {" ".join(line.casefold().split()) for line in lines} - {""}
    if not words:
        raise UserError(f"{KEY}={blocklist} holds no word; type {KEY}=null for none")
    return sorted(words)


def matches(captions: pa.Array, words: list[str]) -> pa.Array:
    """Which of N captions hold one of the case-folded ``words`` as a whole word or phrase."""
    return pc.match_substring_regex(_casefold(captions), _pattern(words))


def _pattern(words: list[str]) -> str:
    return "|".join(
        ("" if _stands_alone(word[0]) else _START)
        + re.escape(word).replace("\\ ", " ")
        + ("" if _stands_alone(word[-1]) else _END)
        for word in words
    )


def _stands_alone(character: str) -> bool:
    return unicodedata.name(character, "").startswith(_WITHOUT_SPACES)


def _casefold(captions: pa.Array) -> pa.Array:
    """As ``str.casefold``, which Arrow does not have; what is ASCII is only put in lower case."""
    lower = pc.utf8_lower(captions)
    rest = pc.invert(pc.string_is_ascii(captions))
    folded = [caption.casefold() for caption in captions.filter(rest).to_pylist()]
    return pc.replace_with_mask(lower, rest, pa.array(folded, lower.type))
