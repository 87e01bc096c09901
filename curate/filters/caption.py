"""Rules on the words of a caption."""

# pyright: reportAttributeAccessIssue=false
from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc  # makes its functions when it is imported

from curate.filters import blocklist, contacts, repetition
from curate.filters.config import CaptionFilterConfig
from curate.filters.rule import Rule, above, below, within
from curate.filters.text import Text, is_word_character, mark


def rules(config: CaptionFilterConfig) -> list[Rule]:
    """Those that the configuration switches on and that look at one caption at a time.

    Raises:
        FileNotFoundError, UserError: the file of the blocklist is not there, or is none.
    """
    found = [
        *within("caption_characters", characters, config.min_characters, config.max_characters),
        *within("caption_words", words, config.min_words, config.max_words),
        *within("caption_tokens", lambda pairs: pairs["tokens"], None, config.max_tokens),
    ]
    if config.min_alphanumeric is not None:
        found.append(below("caption_alphanumeric", alphanumeric, config.min_alphanumeric))
    found += _repetition(config)
    if config.blocklist is not None:
        found.append(_blocklist(blocklist.read(config.blocklist)))
    if config.contacts == "drop":
        reason = "caption_contacts: holds a URL, an e-mail address or a telephone number"
        found.append(Rule("caption_contacts", reason, _has_contact))
    return found


def data_set_rules(config: CaptionFilterConfig) -> list[Rule]:
    """Those that have to see all captions that are left at once."""
    return [*within("caption_occurrences", occurrences, None, config.max_occurrences)]


def characters(pairs: pd.DataFrame) -> pd.Series:
    """Code points."""
    return _series(pairs, pc.utf8_length(_captions(pairs)))


def words(pairs: pd.DataFrame) -> pd.Series:
    """Words as single spaces divide them; captions are clean, see ``sample.clean_caption``."""
    captions = _captions(pairs)
    spaces = pc.count_substring(captions, " ")
    return _series(pairs, pc.add(spaces, pc.cast(pc.not_equal(captions, ""), spaces.type)))


def alphanumeric(pairs: pd.DataFrame) -> pd.Series:
    """The share of letters, marks on letters, and digits among all characters, spaces included.

    Data-Juicer's ``alphanumeric_filter``, but that marks count: else most of what is written in
    Hindi or Thai would fail. An empty caption has 0.
    """
    blocks = Text.blocks(_captions(pairs))
    found = [t.count(mark(t.codes, is_word_character)) for t in blocks]
    total = np.maximum(characters(pairs).to_numpy(), 1)
    share = np.concatenate([np.zeros(0), *found]) / total
    return pd.Series(share.astype(np.float32), index=pairs.index)


def occurrences(pairs: pd.DataFrame) -> pd.Series:
    """How many of the pairs have exactly this caption."""
    codes = pc.dictionary_encode(_captions(pairs)).indices.to_numpy()
    return pd.Series(np.bincount(codes)[codes], index=pairs.index, dtype="int64")


def _repetition(config: CaptionFilterConfig) -> list[Rule]:
    def of_characters(pairs: pd.DataFrame) -> pd.Series:
        share = repetition.of_characters(_captions(pairs), config.repetition_characters)
        return pd.Series(share, index=pairs.index)

    def of_words(pairs: pd.DataFrame) -> pd.Series:
        share = repetition.of_words(_captions(pairs), config.repetition_words)
        return pd.Series(share, index=pairs.index)

    found = []
    if config.max_character_repetition is not None:
        most = config.max_character_repetition
        found.append(above("caption_character_repetition", of_characters, most))
    if config.max_word_repetition is not None:
        found.append(above("caption_word_repetition", of_words, config.max_word_repetition))
    return found


def _blocklist(words: list[str]) -> Rule:
    return Rule(
        "caption_blocklist",
        "caption_blocklist: holds a listed word",
        lambda pairs: pd.Series(blocklist.matches(_captions(pairs), words), index=pairs.index),
    )


def _has_contact(pairs: pd.DataFrame) -> pd.Series:
    return _series(pairs, contacts.has_contact(_captions(pairs)))


def _captions(pairs: pd.DataFrame) -> pa.Array:
    """The column as one Arrow array of strings, without a copy where it is one already."""
    captions = pa.array(pairs["caption"], from_pandas=True)
    if isinstance(captions, pa.ChunkedArray):
        captions = captions.combine_chunks()
    return captions if len(captions) else pa.array([], pa.large_string())


def _series(pairs: pd.DataFrame, values: pa.Array) -> pd.Series:
    return pd.Series(values.to_numpy(zero_copy_only=False), index=pairs.index)
