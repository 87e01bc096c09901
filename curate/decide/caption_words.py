"""How much of what captions say is the same: the words they share, each weighted by how rare it is.

Every picture has one set of words, those of all its captions. A word that G of the N groups of pictures
have weighs log(N / G) (Spärck Jones 1972, inverse document frequency): "waving" says more about a picture
than "hand", and a word of all captions nothing. Groups are counted, so that copies make no word common.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from curate.run.database import registered

if TYPE_CHECKING:
    import duckdb

CHARACTERS = 2_000  # of a caption, from its start
MOST = 32  # groups that have the word; the tones and sexes of one person of OpenMoji are 18

# Chinese and Japanese write no spaces: each character counts as a word.
_UNSPACED = "\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W_{_UNSPACED}]+")
_PAIRS = 1 << 16  # whose words are compared at a time
_LEAST_RARE = 2  # groups; a word of two is rare in the smallest data set
_RARE_SHARE = 10  # a word that more than a tenth of the groups have is not rare


def word_hashes(captions: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """The different words of each of N captions, as the narrow table ``words`` holds them.

    Returns:
        The position of the caption, (E,) int64, ascending, and a hash of the word's letters, (E,) uint64,
        ascending within a caption.
    """
    known: dict[str, int] = {}
    counts = np.zeros(len(captions), np.int64)
    found: list[int] = []
    for place, caption in enumerate(captions):
        words = set(_WORD.findall(caption[:CHARACTERS].casefold()))
        found.extend([known.setdefault(word, len(known)) for word in words])
        counts[place] = len(words)
    hashes = np.fromiter(map(_hash, known), np.uint64, len(known))[np.array(found, np.int64)]
    owner = np.repeat(np.arange(len(captions)), counts)
    return owner, hashes[np.lexsort((hashes, owner))]


def few_of(groups: int) -> int:
    """How many of ``groups`` may have what captions share, for it to say that their pictures belong together."""
    return max(_LEAST_RARE, min(MOST, groups // _RARE_SHARE))


def create_having(
    connection: duckdb.DuckDBPyConnection, table: str, words: str, groups: str
) -> None:
    """Create a table ``word, groups``: how many groups have each word.

    Args:
        connection: which counts on the disk what does not fit in memory.
        table: its name.
        words: a query of ``image, word``, perhaps several times the same.
        groups: a query of ``image, name``, each image's group.
    """
    connection.sql(
        f"""CREATE TABLE {table} AS SELECT word, count(*) AS groups FROM (
            SELECT DISTINCT word, name FROM ({words}) JOIN ({groups}) USING (image)
        ) GROUP BY word"""
    )


@dataclass(frozen=True, slots=True)
class CaptionWords:
    """The words of N pictures, in memory: of a draw, or of those that are being compared.

    Attributes:
        starts: (N + 1,) where each picture's words begin in ``words``.
        words: numbers of words; those of a picture ascend, the rarest first.
        weights: (V,) of each word, in nats.
    """

    starts: np.ndarray
    words: np.ndarray
    weights: np.ndarray

    @classmethod
    def of(
        cls, owner: np.ndarray, hashes: np.ndarray, having: np.ndarray, count: int, groups: int
    ) -> CaptionWords:
        """Weigh and order words.

        Args:
            owner: (E,) the picture that each word is of, 0 ... ``count`` - 1, in any order.
            hashes: (E,) uint64 of the words; the same one counts once.
            having: (E,) integer, how many groups have the word.
            count: pictures.
            groups: how many there are in all.
        """
        known, first, code = np.unique(hashes, return_index=True, return_inverse=True)
        common = having[first]
        order = np.lexsort((known, common))
        rank = np.empty(len(order), np.int64)
        rank[order] = np.arange(len(order))
        size = max(len(known), 1)
        owned = np.unique(owner.astype(np.int64) * size + rank[code])
        starts = np.searchsorted(owned // size, np.arange(count + 1))
        return cls(starts, owned % size, np.log(groups / common[order]))

    @classmethod
    def read(
        cls,
        connection: duckdb.DuckDBPyConnection,
        images: np.ndarray,
        words: str,
        having: str,
        groups: int,
    ) -> CaptionWords:
        """The words of some ``images`` (N,) int64, each once, in this order.

        Args:
            connection: with the views ``words`` and the like.
            images: rows of their first captions.
            words: a query of ``image, word``.
            having: the table of ``create_having``.
            groups: how many there are in all.
        """
        query = f"""SELECT place, word, groups FROM ({words}) JOIN chosen USING (image)
            JOIN {having} USING (word) ORDER BY place, word"""
        chosen = pa.table({"image": images, "place": np.arange(len(images))})
        with registered(connection, "chosen", chosen):
            found = connection.sql(query).to_arrow_table()
        place, word, times = (found[name].to_numpy() for name in ("place", "word", "groups"))
        return cls.of(place, word, times, len(images), groups)

    def shared(self, one: np.ndarray, other: np.ndarray) -> np.ndarray:
        """For each of M pairs of pictures the weight that they share, as a part of the lighter's: (M,), 0 ... 1.

        1: all words of the one are also the other's. 0 where a picture has no word that weighs anything.
        """
        count = len(self.starts) - 1
        owner = np.repeat(np.arange(count), np.diff(self.starts))
        totals = np.bincount(owner, self.weights[self.words], minlength=count)
        found = np.zeros(len(one))
        for start in range(0, len(one), _PAIRS):
            rows = slice(start, start + _PAIRS)
            lighter = np.minimum(totals[one[rows]], totals[other[rows]])
            both = self.weight_of_both(one[rows], other[rows])
            found[rows] = np.divide(both, lighter, where=lighter > 0, out=np.zeros(len(both)))
        return found.round(6)

    def weight_of_both(self, one: np.ndarray, other: np.ndarray) -> np.ndarray:
        """The summed weight of the words that two pictures have, (M,)."""
        first, second = self._entries(one), self._entries(other)
        place = np.minimum(np.searchsorted(second, first), len(second) - 1)
        both = first[second[place] == first] if len(second) else first[:0]
        size = max(len(self.weights), 1)
        return np.bincount(both // size, self.weights[both % size], minlength=len(one))

    def _entries(self, pictures: np.ndarray) -> np.ndarray:
        """A number for each word of each picture: place in ``pictures`` x V + word, ascending."""
        place, at = ranges(self.starts[pictures], self.starts[pictures + 1])
        return place * max(len(self.weights), 1) + self.words[at]


def ranges(starts: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each of N ranges its number, repeated, and each place in it: two arrays (sum of lengths,)."""
    counts = ends - starts
    number = np.repeat(np.arange(len(starts)), counts)
    within = np.arange(len(number)) - np.repeat(np.cumsum(counts) - counts, counts)
    return number, starts[number] + within


def _hash(word: str) -> int:
    return int.from_bytes(blake2b(word.encode(errors="replace"), digest_size=8).digest(), "little")
