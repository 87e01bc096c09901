"""Rules on the text of a caption."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from curate.filters.checks import check_range
from curate.filters.rule import Reason, Rule, above_reason, within
from curate.run.schema import PATH, check

_GARBLED = "caption_garbled: holds U+FFFD in place of bytes that are no text"


@dataclass
class CaptionFilterConfig:
    """Bounds on a caption; null switches a bound off. ``caption_measures`` defines the measures.

    Attributes:
        min_characters: Unicode code points.
        max_characters: Unicode code points.
        min_words: words, as spaces separate them.
        max_words: words, as spaces separate them.
        max_tokens: tokens of the CLIP's tokenizer with start and end token, before truncation; of a
            caption beyond 10,000 characters those of its first 10,000.
        min_alphanumeric: share of characters that are letters or digits.
        max_character_repetition: share of repeated n-grams of characters.
        repetition_characters: n of these n-grams.
        max_word_repetition: share of repeated n-grams of words.
        repetition_words: n of these n-grams.
        blocklist: words and phrases to drop, matched as whole words: a list, or the path of a file
            with one on each line.
        garbled: keep or drop captions with U+FFFD, which stands for bytes that are no text.
        contacts: keep or drop captions with a URL, an e-mail address or a telephone number.
        max_occurrences: pairs with exactly this caption among those that earlier rules kept.
    """

    min_characters: int | None = None
    max_characters: int | None = None
    min_words: int | None = None
    max_words: int | None = None
    max_tokens: int | None = None
    min_alphanumeric: float | None = None
    max_character_repetition: float | None = None
    repetition_characters: int = 10
    max_word_repetition: float | None = None
    repetition_words: int = 5
    blocklist: Any = field(
        default=None, metadata=PATH
    )  # list[str] | str | None, a union that OmegaConf cannot type
    garbled: str = "drop"
    contacts: str = "keep"
    max_occurrences: int | None = None

    def __post_init__(self) -> None:
        key = "filters.caption"
        for unit in ("characters", "words"):
            low, high = getattr(self, f"min_{unit}"), getattr(self, f"max_{unit}")
            check_range(key, unit, low, high)
        for name in ("max_tokens", "max_occurrences"):
            most = getattr(self, name)
            check(most is None or most > 0, f"{key}.{name}", most, "null or > 0")
        for name in ("min_alphanumeric", "max_character_repetition", "max_word_repetition"):
            share = getattr(self, name)
            check(share is None or 0 <= share <= 1, f"{key}.{name}", share, "null or 0 ... 1")
        for name in ("repetition_characters", "repetition_words"):
            n = getattr(self, name)
            check(1 <= n <= 100, f"{key}.{name}", n, "1 ... 100")
        words = self.blocklist
        valid = words is None or isinstance(words, str) or _are_strings(words)
        check(valid, f"{key}.blocklist", words, "null, a file, or a list of words (numbers quoted)")
        for name in ("garbled", "contacts"):
            choice = getattr(self, name)
            check(choice in ("keep", "drop"), f"{key}.{name}", choice, "keep, drop")


def rules(config: CaptionFilterConfig) -> list[Rule]:
    """The switched-on rules that look at one caption at a time.

    Raises:
        FileNotFoundError: there is no file at the blocklist's path.
        UserError: that file is not UTF-8 text, or the blocklist is empty.
    """
    from curate.filters import blocklist
    from curate.filters import caption_measures as measures

    characters = partial(measures.character_repetition, n=config.repetition_characters)
    words = partial(measures.word_repetition, n=config.repetition_words)
    found = [
        *(
            [Rule("caption_garbled", _GARBLED, measures.is_garbled)]
            if config.garbled == "drop"
            else []
        ),
        *within(
            "caption_characters", measures.characters, config.min_characters, config.max_characters
        ),
        *within("caption_words", measures.words, config.min_words, config.max_words),
        *within("caption_tokens", lambda pairs: pairs["tokens"], high=config.max_tokens),
        *within("caption_alphanumeric", measures.alphanumeric, low=config.min_alphanumeric),
        *within("caption_character_repetition", characters, high=config.max_character_repetition),
        *within("caption_word_repetition", words, high=config.max_word_repetition),
    ]
    if config.blocklist is not None:
        listed = blocklist.read(config.blocklist)
        reason = "caption_blocklist: holds a listed word"
        found.append(
            Rule("caption_blocklist", reason, partial(measures.has_listed_word, words=listed))
        )
    if config.contacts == "drop":
        reason = "caption_contacts: holds a URL, an e-mail address or a telephone number"
        found.append(Rule("caption_contacts", reason, measures.has_contact))
    return found


def too_often(config: CaptionFilterConfig) -> list[Reason]:
    """The rule on how many of the pairs that earlier rules kept have this caption, if it is switched on."""
    most = config.max_occurrences
    return [] if most is None else [above_reason("caption_occurrences", most)]


def _are_strings(values: Any) -> bool:
    return isinstance(values, Sequence) and all(isinstance(value, str) for value in values)
