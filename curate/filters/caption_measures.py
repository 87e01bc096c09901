"""Measures of captions, computed on whole columns at once."""

# pyright: reportAttributeAccessIssue=false
from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc  # generates its functions on import

from curate.filters import blocklist, contacts, repetition
from curate.filters.text import Text, is_word_character, mark


def characters(pairs: pd.DataFrame) -> pd.Series:
    """The number of Unicode code points."""
    return _series(pairs, pc.utf8_length(_captions(pairs)))


def words(pairs: pd.DataFrame) -> pd.Series:
    """The number of words between single spaces, the only white space in ``readers.candidate.clean_caption``s."""
    captions = _captions(pairs)
    spaces = pc.count_substring(captions, " ")
    return _series(pairs, pc.add(spaces, pc.cast(pc.not_equal(captions, ""), spaces.type)))


def alphanumeric(pairs: pd.DataFrame) -> pd.Series:
    """Letters, marks on letters and digits as a share of all characters, spaces included; float32.

    An empty caption has 0. This is Data-Juicer's ``alphanumeric_filter``, except that marks count:
    without them most captions in Hindi or Thai would fail.
    """
    blocks = Text.blocks(_captions(pairs))
    found = [t.count(mark(t.codes, is_word_character)) for t in blocks]
    total = np.maximum(characters(pairs).to_numpy(), 1)
    share = np.concatenate([np.zeros(0), *found]) / total
    return pd.Series(share.astype(np.float32), index=pairs.index)


def character_repetition(pairs: pd.DataFrame, n: int) -> pd.Series:
    """The share of repeated n-grams of characters, see ``repetition.of_characters``."""
    return pd.Series(repetition.of_characters(_captions(pairs), n), index=pairs.index)


def word_repetition(pairs: pd.DataFrame, n: int) -> pd.Series:
    """The share of repeated n-grams of words, see ``repetition.of_words``."""
    return pd.Series(repetition.of_words(_captions(pairs), n), index=pairs.index)


def is_garbled(pairs: pd.DataFrame) -> pd.Series:
    """Mask: captions with U+FFFD."""
    return _series(pairs, pc.match_substring(_captions(pairs), "\ufffd"))


def has_listed_word(pairs: pd.DataFrame, words: list[str]) -> pd.Series:
    """Mask: captions that contain one of ``words``, see ``blocklist.matches``."""
    return pd.Series(blocklist.matches(_captions(pairs), words), index=pairs.index)


def has_contact(pairs: pd.DataFrame) -> pd.Series:
    """Mask: captions that contain a URL, an e-mail address or a telephone number."""
    return _series(pairs, contacts.has_contact(_captions(pairs)))


def _captions(pairs: pd.DataFrame) -> pa.Array:
    """The column as one Arrow array of strings, without a copy if it is one already."""
    captions = pa.array(pairs["caption"], from_pandas=True)
    if isinstance(captions, pa.ChunkedArray):
        captions = captions.combine_chunks()
    return captions if len(captions) else pa.array([], pa.large_string())


def _series(pairs: pd.DataFrame, values: pa.Array) -> pd.Series:
    return pd.Series(values.to_numpy(zero_copy_only=False), index=pairs.index)
