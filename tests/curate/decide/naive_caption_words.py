"""The words of all captions in memory: an oracle for ``caption_words`` and ``rare_words``."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np

from curate.run.hashing import GOLDEN, mix

CHARACTERS = 2_000  # of a caption, from its start
RAREST = 6  # words of a picture that are looked up, alone and in pairs
OF_GROUP = 4  # pictures of a group that are paired with others for one of these

# Chinese and Japanese write no spaces: each character counts as a word.
_UNSPACED = "\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W_{_UNSPACED}]+")
_PAIRS = 1 << 16  # whose words are compared at a time
_KEYS = 1 << 22  # that are sorted at a time: about 250 MB


@dataclass(frozen=True, slots=True)
class CaptionWords:
    """The words of N pictures.

    Attributes:
        starts: (N + 1,) where each picture's words begin in ``words``.
        words: numbers of words; those of a picture ascend, the rarest first.
        weights: (V,) of each word, in nats.
        hashes: (V,) uint64, of the words' letters.
        groups: (N,) the group of each picture, 0 ... G - 1.
    """

    starts: np.ndarray
    words: np.ndarray
    weights: np.ndarray
    hashes: np.ndarray
    groups: np.ndarray

    @classmethod
    def of(cls, captions: Sequence[str], pictures: np.ndarray, groups: np.ndarray) -> CaptionWords:
        """Read the words of all captions.

        Args:
            captions: of all pictures, M in all.
            pictures: (M,) whose caption each is, 0 ... N - 1.
            groups: (N,) the group of each picture, 0 ... G - 1.
        """
        known, codes, ends = {}, [], []
        for caption in captions:
            found = set(_WORD.findall(caption[:CHARACTERS].casefold()))
            codes.extend([known.setdefault(word, len(known)) for word in found])
            ends.append(len(codes))
        owner = np.repeat(pictures, np.diff(ends, prepend=0)).astype(np.int64)
        hashes = np.fromiter(map(_hash, known), np.uint64, len(known))
        size = max(len(known), 1)
        words = np.array(codes, np.int64)
        having = np.unique(groups[owner] * size + words) % size
        common = np.maximum(np.bincount(having, minlength=len(known)), 1)
        weights = np.log((groups.max(initial=0) + 1) / common)
        order = np.lexsort((hashes, -weights))
        rank = np.empty(len(order), np.int64)
        rank[order] = np.arange(len(order))
        owned = np.unique(owner * size + rank[words])
        starts = np.searchsorted(owned // size, np.arange(len(groups) + 1))
        return cls(starts, owned % size, weights[order], hashes[order], groups)

    def shared(self, one: np.ndarray, other: np.ndarray) -> np.ndarray:
        """For each of M pairs of pictures the weight that they share, as a part of the lighter's: (M,), 0 ... 1.

        1: all words of the one are also the other's. 0 where a picture has no word that weighs anything.
        """
        owner = np.repeat(np.arange(len(self.groups)), np.diff(self.starts))
        totals = np.bincount(owner, self.weights[self.words], minlength=len(self.groups))
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
        counts = self.starts[pictures + 1] - self.starts[pictures]
        place = np.repeat(np.arange(len(pictures)), counts)
        within = np.arange(len(place)) - np.repeat(np.cumsum(counts) - counts, counts)
        words = self.words[self.starts[pictures][place] + within]
        return place * max(len(self.weights), 1) + words

    def sharing(self, most: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Pairs of pictures of two groups that share what at most ``most`` groups have, in blocks.

        What they share is one of their ``RAREST`` words, two of them, or all words. The work grows with
        N; a pair may come several times. Of a group that has many such pictures, the first ``OF_GROUP``
        are paired.
        """
        parts = -(-len(self.groups) * (RAREST * (RAREST + 1) // 2 + 1) // _KEYS)
        for part in range(parts):
            keys, pictures = self._keys(part, parts)
            order = np.lexsort((pictures, self.groups[pictures], keys))
            keys, pictures = keys[order], pictures[order]
            groups = self.groups[pictures]
            is_first = np.append(True, (keys[1:] != keys[:-1]) | (groups[1:] != groups[:-1]))
            is_first = is_first[: len(keys)]  # of its group with this key
            begins = np.flatnonzero(is_first)
            nth = np.arange(len(keys)) - begins[np.cumsum(is_first) - 1]
            _, number = np.unique(keys, return_inverse=True)
            few = np.bincount(number, is_first) <= most
            taken = few[number] & (nth < OF_GROUP)
            keys, pictures, groups = keys[taken], pictures[taken], groups[taken]
            for step in range(1, most * OF_GROUP):
                left = np.flatnonzero(keys[step:] == keys[:-step])
                if not len(left):
                    break
                left = left[groups[left] != groups[left + step]]
                yield pictures[left], pictures[left + step]

    def _keys(self, part: int, parts: int) -> tuple[np.ndarray, np.ndarray]:
        """Hashes of what pictures may share, and the pictures; those that leave ``part`` on division."""
        counts = np.diff(self.starts)
        has = [np.flatnonzero(counts > place) for place in range(RAREST)]
        rarest = [mix(self.hashes[self.words[self.starts[rows] + n]]) for n, rows in enumerate(has)]
        found = list(zip(rarest, has, strict=True))
        with np.errstate(over="ignore"):
            for high in range(RAREST):
                for low in range(high):
                    lower = rarest[low][np.searchsorted(has[low], has[high])]
                    # The sum is the same in whichever order two equally rare words stand.
                    found.append((mix((lower + rarest[high]) * np.uint64(GOLDEN)), has[high]))
            sums = np.append(np.uint64(0), np.cumsum(mix(self.hashes)[self.words], dtype=np.uint64))
            whole = sums[self.starts[has[0] + 1]] - sums[self.starts[has[0]]]
        found.append((mix(whole ^ np.uint64(GOLDEN)), has[0]))
        chosen = [(keys % np.uint64(parts) == part, keys, rows) for keys, rows in found]
        keys = np.concatenate([keys[mask] for mask, keys, _ in chosen])
        return keys, np.concatenate([rows[mask] for mask, _, rows in chosen])


def _hash(word: str) -> int:
    return int.from_bytes(blake2b(word.encode(errors="replace"), digest_size=8).digest(), "little")
