"""Shuffled captions: the similarities that wrong pairs have by this CLIP, and the cut they give.

They are the null distribution of a similarity: pairs that are known to be wrong.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from curate.annotate.embeddings import Embeddings
from curate.decide import draw

SHUFFLES = 4
MAX_PAIRS = 10_000  # whose embeddings are in memory at once


@dataclass(frozen=True, slots=True)
class Null:
    """Similarities of images with captions of other images, ascending: the null distribution.

    It is empty if all captions are equal, or all images; then no cut can be calibrated.
    """

    similarities: np.ndarray

    def cut(self, false_keep_rate: float) -> float | None:
        """The lowest cut that no more than ``false_keep_rate`` of the shuffled pairs pass (>=)."""
        if not len(self.similarities):
            return None
        allowed = int(false_keep_rate * len(self.similarities) + 1e-9)
        if allowed >= len(self.similarities):
            return -1.0
        highest_refused = self.similarities[len(self.similarities) - allowed - 1]
        return float(np.nextafter(np.float32(highest_refused), np.float32(np.inf)))

    def false_keep_rate(self, cut: float) -> float | None:
        """The share of shuffled pairs that a cut lets pass."""
        if not len(self.similarities):
            return None
        below = np.searchsorted(self.similarities, np.float32(cut), side="left")
        return 1 - float(below) / len(self.similarities)

    def separation(self, own: np.ndarray) -> float | None:
        """AUC: how often a pair of the data set is more similar than a shuffled one; ties count half.

        1: this CLIP always tells them apart; 0.5: it guesses. ``own`` has shape (N,).
        """
        if not len(self.similarities) or not len(own):
            return None
        below = np.searchsorted(self.similarities, own, side="left")
        up_to = np.searchsorted(self.similarities, own, side="right")
        return float((below + up_to).mean() / 2 / len(self.similarities))


def shuffled(annotations: pd.DataFrame, embeddings: Embeddings, seed: int = 0) -> Null:
    """Give each image, or each of ``MAX_PAIRS`` drawn ones, captions of others at random.

    Pairs that may be true are left out: the same picture, or a caption that the image has itself. The
    order of the pairs and how they are cut into parts decide nothing, see ``draw``.

    Args:
        annotations: all rows of the parts, with ``key``, ``clip_similarity``, ``caption``,
            ``caption_index`` and ``pixels_sha256``.
        embeddings: of the same parts.
        seed: the same annotations and seed give the same pairs.
    """
    rows = annotations.index[annotations["clip_similarity"].notna()].to_numpy()
    names = annotations.loc[rows, ["key", "caption_index"]]
    numbers = draw.pair_numbers(names["key"], names["caption_index"].to_numpy())
    streams = range(seed * (SHUFFLES + 1), (seed + 1) * (SHUFFLES + 1))
    chosen = draw.drawn(numbers, MAX_PAIRS, streams[0])
    if not len(chosen):
        return Null(np.zeros(0, np.float32))
    rows, numbers = rows[chosen], numbers[chosen]
    scored = annotations.loc[rows, ["caption", "caption_index", "pixels_sha256"]]
    images = embeddings.images(rows - scored["caption_index"].to_numpy())
    texts = embeddings.texts(rows)
    group, pictures = pd.factorize(scored["pixels_sha256"])
    caption, captions = pd.factorize(scored["caption"])
    own = _own(annotations, pictures, captions)
    found = []
    for stream in streams[1:]:
        partner = draw.partners(numbers, stream)
        may_be_true = (group == group[partner]) | np.array(
            [pair in own for pair in zip(group.tolist(), caption[partner].tolist(), strict=True)]
        )
        found.append(_similarities(images, texts, partner)[~may_be_true])
    return Null(np.sort(np.concatenate(found)).astype(np.float32))


def _own(annotations: pd.DataFrame, pictures: pd.Index, captions: pd.Index) -> set[tuple[int, int]]:
    """(picture, caption) positions of true pairs, including rows that were not drawn."""
    picture = pictures.get_indexer(pd.Index(annotations["pixels_sha256"]))
    among = picture >= 0
    caption = captions.get_indexer(pd.Index(annotations["caption"][among]))
    return set(zip(picture[among].tolist(), caption.tolist(), strict=True))


def _similarities(images: np.ndarray, texts: np.ndarray, partner: np.ndarray) -> np.ndarray:
    """The similarity of each image with the text of its partner, (N,), rounded to six digits as pairs are.

    In double precision, one block at a time: a copy of all would take twice the embeddings' memory.
    Each sum is its own, so that no block's size shows in the last digit.
    """
    blocks = np.array_split(np.arange(len(partner)), len(partner) // 1024 + 1)
    parts = [
        (images[rows].astype(np.float64) * texts[partner[rows]]).sum(axis=1) for rows in blocks
    ]
    return np.concatenate(parts).round(6)
