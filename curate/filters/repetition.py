"""How much a caption repeats itself: shares of n-grams that come more than once."""

# pyright: reportAttributeAccessIssue=false
from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc  # makes its functions when it is imported

from curate.filters.text import Text, mark
from curate.run.hashing import GOLDEN, mix

_HASH_BITS = np.uint64(48)  # of a key; the 16 above them number the captions of a block


@dataclass(frozen=True, slots=True)
class _Repeats:
    """The n-grams that come more than once in one of N captions.

    Attributes:
        owner: (R,) the caption of each, ascending.
        count: (R,) how often it comes there.
        total: (N,) n-grams of each caption, counted as often as they come.
    """

    owner: np.ndarray
    count: np.ndarray
    total: np.ndarray


def of_characters(captions: pa.Array, n: int) -> np.ndarray:
    """The share of the commonest repeated n-grams of characters among all, (N,) float32.

    The sum of the k highest counts, over the sum of all counts. k is the square root of the number
    of different n-grams, rounded down, and no more than come twice or oftener. A caption shorter
    than n has 0. The definition is that of ROOTS (Laurençon et al. 2022, character repetition
    removal, n = 10) and of Data-Juicer's ``character_repetition_filter`` (n = 10).
    """
    shares = [_commonest(_repeats(t.codes, t.starts, n)) for t in Text.blocks(captions)]
    return np.concatenate([np.zeros(0), *shares]).astype(np.float32)


def of_words(captions: pa.Array, n: int) -> np.ndarray:
    """The share of n-grams of words that come more than once, (N,) float32.

    The sum of the counts above 1, over the sum of all counts. Words are what white space divides,
    in lower case. A caption of fewer than n words has 0. The definition is that of ROOTS
    (Laurençon et al. 2022, word repetition removal, n = 5) and of Data-Juicer's
    ``word_repetition_filter`` (n = 10); they strip punctuation from words, here it stays.
    """
    shares = []
    for text in Text.blocks(pc.utf8_lower(captions)):
        found = _repeats(*text.words(~mark(text.codes, str.isspace)), n)
        shares.append(_share(found, np.arange(len(found.owner))))
    return np.concatenate([np.zeros(0), *shares]).astype(np.float32)


def _repeats(units: np.ndarray, starts: np.ndarray, n: int) -> _Repeats:
    """Find them by sorting hashes: n-grams of a caption are equal where 48 bits of theirs are."""
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
    different = total - np.bincount(owner, weights=count - 1, minlength=len(total))
    order = np.lexsort((-count, owner))
    rank = np.arange(len(owner)) - np.searchsorted(owner, owner)
    return _share(found, order[rank < np.floor(np.sqrt(different[owner]))])


def _share(found: _Repeats, taken: np.ndarray) -> np.ndarray:
    """The counts of the taken n-grams over those of all, by caption; 0 where there are none."""
    owner, count, total = found.owner, found.count, found.total
    part = np.bincount(owner[taken], weights=count[taken], minlength=len(total))
    return part / np.maximum(total, 1)
