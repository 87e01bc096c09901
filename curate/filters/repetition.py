"""How much a caption repeats itself: the share of n-grams that occur more than once."""

# pyright: reportAttributeAccessIssue=false
from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc  # generates its functions on import

from curate.filters.text import Text, mark
from curate.run.hashing import GOLDEN, mix

_HASH_BITS = np.uint64(48)  # of a sort key; the upper 16 are the caption's number in its block


@dataclass(frozen=True, slots=True)
class _Repeats:
    """The R n-grams that occur more than once within one of N captions.

    Attributes:
        owner: (R,) the index of the caption, ascending.
        count: (R,) occurrences in that caption.
        total: (N,) the number of n-grams of each caption, repeated ones included.
    """

    owner: np.ndarray
    count: np.ndarray
    total: np.ndarray


def of_characters(captions: pa.Array, n: int) -> np.ndarray:
    """The share of the most frequent repeated n-grams of characters, (N,) float32.

    The sum of the k highest counts, over the sum of all counts. k is the square root of the number
    of distinct n-grams, rounded down, but at most the number of repeated ones. A caption shorter
    than n has 0. The definition is that of ROOTS (Laurençon et al. 2022, character repetition
    removal, n = 10) and of Data-Juicer's ``character_repetition_filter`` (n = 10).
    """
    shares = [_commonest(_repeats(t.codes, t.starts, n)) for t in Text.blocks(captions)]
    return np.concatenate([np.zeros(0), *shares]).astype(np.float32)


def of_words(captions: pa.Array, n: int) -> np.ndarray:
    """The share of n-grams of words that occur more than once, (N,) float32.

    The sum of the counts above 1, over the sum of all counts. Words are separated by white space
    and compared in lower case. A caption of fewer than n words has 0. The definition is that of ROOTS
    (Laurençon et al. 2022, word repetition removal, n = 5) and of Data-Juicer's
    ``word_repetition_filter`` (n = 10); they strip punctuation from words, this keeps it.
    """
    shares = []
    for text in Text.blocks(pc.utf8_lower(captions)):
        found = _repeats(*text.words(~mark(text.codes, str.isspace)), n)
        shares.append(_share(found, np.arange(len(found.owner))))
    return np.concatenate([np.zeros(0), *shares]).astype(np.float32)


def _repeats(units: np.ndarray, starts: np.ndarray, n: int) -> _Repeats:
    """Find repeated n-grams by sorting 48-bit hashes: equal hashes in one caption count as equal."""
    lengths = np.diff(starts)
    windows = max(0, len(units) - n + 1)
    gram = np.zeros(windows, np.uint64)
    for place in range(n):  # Horner's rule, for all windows at once
        gram *= np.uint64(GOLDEN)
        gram += units[place : place + windows]
    owner = np.repeat(np.arange(len(lengths), dtype=np.uint64) << _HASH_BITS, lengths)
    inside = owner[:windows] == owner[n - 1 :]
    keys = ((mix(gram) >> (np.uint64(64) - _HASH_BITS)) | owner[:windows])[inside]
    keys.sort()
    equal = np.flatnonzero(keys[1:] == keys[:-1])
    first = np.flatnonzero(np.diff(equal, prepend=-2) > 1)
    return _Repeats(
        (keys[equal[first]] >> _HASH_BITS).astype(np.int64),
        np.diff(first, append=len(equal)) + 1,
        np.maximum(lengths - n + 1, 0),
    )


def _commonest(found: _Repeats) -> np.ndarray:
    owner, count, total = found.owner, found.count, found.total
    distinct = total - np.bincount(owner, weights=count - 1, minlength=len(total))
    order = np.lexsort((-count, owner))
    rank = np.arange(len(owner)) - np.searchsorted(owner, owner)
    return _share(found, order[rank < np.floor(np.sqrt(distinct[owner]))])


def _share(found: _Repeats, chosen: np.ndarray) -> np.ndarray:
    """The summed counts of the chosen n-grams over those of all, by caption; 0 for no n-grams."""
    owner, count, total = found.owner, found.count, found.total
    part = np.bincount(owner[chosen], weights=count[chosen], minlength=len(total))
    return part / np.maximum(total, 1)
