"""Shuffled captions with all rows in memory: an oracle for ``shuffled_captions``."""

import numpy as np
import pandas as pd

from curate.annotate.embeddings import Embeddings
from curate.decide import draw
from curate.decide.shuffled_captions import MAX_PAIRS, SHUFFLES, Null


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
