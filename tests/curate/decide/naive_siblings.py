"""Siblings found in pandas with all rows in memory: an oracle for ``siblings``."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from curate.annotate.embeddings import Embeddings
from curate.decide import draw, neighbours
from curate.decide.looks import numbers
from curate.measures.phash import PIXELS_DIGITS
from tests.curate.decide.naive_caption_words import CaptionWords
from tests.curate.decide.naive_group_names import group_names

NEAR_CAPTIONS = 0.75
"""Of the weight of the shorter caption's words. Below it, OpenMoji pairs "thumbs up" with "thumbs down"; without
the pictures' help .66 joins 1,417 of COCO's 5,000 first captions to others', .75 joins 732."""

MOST = 32  # groups that have the word; the tones and sexes of one person of OpenMoji are 18
LARGEST = 64  # groups that are joined; OpenMoji's largest families join 33, one of heads in all colours of hair, and 19
NEAREST = 3
"""1 leaves a third of OpenMoji's sibling pairs apart, 2 one in a hundred, 3 one in a thousand."""

UNLIKE_PASS = 0.01  # of the pairs of pictures with unlike captions reach the level

_LEAST_RARE = 2  # groups; a word of two is rare in the smallest data set
_RARE_SHARE = 10  # a word that more than a tenth of the groups have is not rare
_DRAWN, _DRAWS = 10_000, 4  # pictures whose level is measured, and partners of each
_STREAMS = 1_000  # of ``draw``; those below belong to the shuffled captions
_BLOCK = 1 << 12  # pairs of embeddings in memory at a time


@dataclass(frozen=True, slots=True)
class Siblings:
    """What was joined: the groups are the ledger's and the shards' ``duplicate_group``.

    Attributes:
        groups: the name of each row's group; "" where its image was not decoded.
        level: the least cosine of siblings; None where it could not be measured.
        loosened: pictures of groups that would have been larger than ``LARGEST`` groups, so that only
            their nearest were joined.
    """

    groups: pd.Series
    level: float | None
    loosened: int


@dataclass(frozen=True, slots=True)
class Pictures:
    """N different pictures in an order that no input decides, their words and embeddings.

    Attributes:
        table: one row for each, with ``key, pixels_sha256`` and where given ``group``.
        names: (N,) uint64, a hash of each key, ascending.
        words: of their captions.
        embedded: embeddings of all rows; those of ``table`` are looked up by its index.
    """

    table: pd.DataFrame
    names: np.ndarray
    words: CaptionWords
    embedded: Embeddings

    def cosines(self, one: np.ndarray, other: np.ndarray) -> np.ndarray:
        """Of M pairs of pictures, (M,) in double precision, rounded to six digits; 0 without an embedding.

        Embeddings are read once, of these pictures alone, and wait on the disk.
        """
        pictures, place = np.unique(np.concatenate([one, other]), return_inverse=True)
        first, second = np.split(place, 2)
        table, found = self.table.iloc[pictures], np.zeros(len(one))
        rows = table.index.to_numpy() - table["caption_index"].to_numpy()
        with self.embedded.images_on_disk(rows) as vectors:
            for start in range(0, len(one), _BLOCK):
                pairs = slice(start, start + _BLOCK)
                products = vectors[first[pairs]].astype(np.float64) * vectors[second[pairs]]
                found[pairs] = products.sum(axis=1).round(6)
        return found

    def level(self) -> float | None:
        """The cosine that ``UNLIKE_PASS`` of the drawn pairs with unlike captions reach; None without any."""
        ones, others = [], []
        chosen = draw.drawn(self.names, _DRAWN, _STREAMS)
        groups = self.words.groups
        for stream in range(_STREAMS + 1, _STREAMS + 1 + _DRAWS):
            other = chosen[draw.partners(self.names[chosen], stream)]
            unlike = self.words.shared(chosen, other) < NEAR_CAPTIONS
            unlike &= groups[chosen] != groups[other]
            ones.append(chosen[unlike])
            others.append(other[unlike])
        cosines = self.cosines(np.concatenate(ones), np.concatenate(others))
        cosines = cosines[cosines != 0]  # pictures that were not embedded
        return (
            float(np.quantile(cosines, 1 - UNLIKE_PASS, method="higher")) if len(cosines) else None
        )


def find(annotations: pd.DataFrame, copies: pd.Series, embedded: Embeddings) -> Siblings:
    """Join the groups of copies whose pictures are siblings.

    Args:
        annotations: rows with ``key, caption, caption_index, pixels_sha256`` and perhaps ``group``, in
            the order of ``embedded``.
        copies: the group of each row by ``duplicates.groups``; "" where the image was not decoded.
        embedded: embeddings of the same rows.
    """
    decoded = annotations[(copies != "").to_numpy()]
    if decoded.empty:
        return Siblings(copies, None, 0)
    table, names, words = read(decoded, copies[decoded.index])
    pictures = Pictures(table, names, words, embedded)
    level = pictures.level()
    links = np.empty((0, 3)) if level is None else _links(pictures, level)
    labels, loosened = _joined(int(words.groups.max()) + 1, links)
    joined = labels[words.groups]
    pixels = table["pixels_sha256"].str.slice(0, PIXELS_DIGITS)
    named = group_names(joined, pixels, numbers(pixels), table.get("group"))
    by_key = named.set_axis(table["key"].to_numpy())
    groups = by_key.reindex(annotations["key"], fill_value="").set_axis(annotations.index)
    return Siblings(groups, level, int(np.isin(words.groups, np.flatnonzero(loosened)).sum()))


def read(decoded: pd.DataFrame, copies: pd.Series) -> tuple[pd.DataFrame, np.ndarray, CaptionWords]:
    """Each picture's first row, the hash of its key, ascending, and the words of all its captions."""
    table = decoded.drop_duplicates("key")
    hashes = draw.pair_numbers(table["key"], np.zeros(len(table), np.int64))
    order = np.argsort(hashes)
    table = table.iloc[order]
    groups, _ = pd.factorize(copies[table.index])
    pictures = pd.Index(table["key"]).get_indexer(pd.Index(decoded["key"]))
    words = CaptionWords.of(decoded["caption"].fillna("").tolist(), pictures, groups)
    return table, hashes[order], words


def _links(pictures: Pictures, level: float) -> np.ndarray:
    """Pairs of groups with siblings, from each to its nearest: (M, 3) of group, group, place from 0."""
    one, other = _with_near_captions(pictures.words)
    cosines = pictures.cosines(one, other)
    groups, near = pictures.words.groups, cosines >= level
    pairs = np.stack([groups[one], groups[other], cosines], axis=1)[near]
    found = _nearest(np.concatenate([pairs, pairs[:, [1, 0, 2]]]))
    return np.stack([found[:, 0], found[:, 1], _places(found)], axis=1)


def few_of(words: CaptionWords) -> int:
    """How many groups may have what captions share, for it to say that their pictures belong together."""
    return max(_LEAST_RARE, min(MOST, (int(words.groups.max()) + 1) // _RARE_SHARE))


def _with_near_captions(words: CaptionWords) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of pictures (M,), (M,), each once."""
    count, found = len(words.groups), np.empty(0, np.int64)
    for one, other in neighbours.gathered(words.sharing(few_of(words))):
        near = words.shared(one, other) >= NEAR_CAPTIONS
        low, high = np.minimum(one, other)[near], np.maximum(one, other)[near]
        found = np.union1d(found, low * count + high)
    return found // count, found % count


def _nearest(links: np.ndarray) -> np.ndarray:
    """Of links (M, 3), group, group, cosine, those from each to its ``NEAREST``, nearest first; each once."""
    ordered = links[np.lexsort((links[:, 1], -links[:, 2], links[:, 0]))]
    _, first = np.unique(ordered[:, :2], axis=0, return_index=True)
    once = ordered[np.sort(first)]
    return once[_places(once) < NEAREST]


def _places(links: np.ndarray) -> np.ndarray:
    """Of sorted links (M, 3) the place of each among those from the same group, from 0: (M,)."""
    return np.arange(len(links)) - np.searchsorted(links[:, 0], links[:, 0])


def _joined(count: int, links: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Connected groups under ``links``: a label for each of ``count`` (count,), and which were loosened (count,)."""
    one, other, place = links.astype(np.int64).T
    nearest = np.full(count, -1)
    nearest[one[place == 0]] = other[place == 0]
    stays, loosened = np.ones(len(links), bool), np.zeros(count, bool)
    labels = neighbours.components(count, [(one, other)])
    for counts in (place == 0, (place == 0) & (nearest[other] == one)):
        large = np.bincount(labels, minlength=count)[labels] > LARGEST
        if not large.any():
            break
        loosened |= large
        stays &= counts | ~large[one]
        labels = neighbours.components(count, [(one[stays], other[stays])])
    return labels, loosened
