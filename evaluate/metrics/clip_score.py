"""How well pictures fit their captions in a CLIP's eyes: similarity on an anchored scale, and retrieval."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from finetune.intervals import Array, group_means


def clip_similarity(images: Array, texts: Array) -> Array:
    """Cosine of each picture with its own caption; [N, D] unit vectors => [N] in [-1, 1].

    Plain cosine: Hessel et al. (2021) multiply by 2.5 and clip at zero, torchmetrics by 100.

    >>> clip_similarity(np.eye(2), np.array([[1.0, 0.0], [1.0, 0.0]])).tolist()
    [1.0, 0.0]
    """
    return np.einsum("nd,nd->n", images, texts)


def distinct(captions: Sequence[str], groups: Sequence[str]) -> list[str]:
    """Duplicate groups [N], joined where captions say the same: the same words in any order, case or punctuation.

    >>> distinct(["A red cat", "a cat, red", "a dog", "a dog (small)"], ["1", "2", "3", "3"])
    ['1', '1', '3', '3']
    """
    parent: dict[str, str] = {group: group for group in groups}

    def root(group: str) -> str:
        while parent[group] != group:
            group = parent[group]
        return group

    first: dict[tuple[str, ...], str] = {}
    for caption, group in zip(captions, groups, strict=True):
        known = root(first.setdefault(_words(caption), group))
        parent[root(group)] = known
    return [root(group) for group in groups]


def _words(caption: str) -> tuple[str, ...]:
    letters = "".join(c if c.isalnum() else " " for c in caption.casefold())
    return tuple(sorted(letters.split())) or (caption,)


def clip_anchors(images: Array, texts: Array, groups: Sequence[str]) -> tuple[Array, Array]:
    """Similarity of each real picture with wrong captions, on average, and with its own.

    Wrong captions are those of other groups.

    Args:
        images: [N, D] unit embeddings of real pictures. texts: [N, D] of their captions.
        groups: [N], see ``distinct``; at least two of them differ.

    Returns:
        Two vectors [N]: wrong and right.
    """
    names = np.array(groups, dtype=object)
    mismatched = names[:, None] != names[None, :]
    wrong = (images @ texts.T * mismatched).sum(axis=1) / mismatched.sum(axis=1)
    return wrong, clip_similarity(images, texts)


def anchored(similarity: Array, wrong: Array, right: Array, groups: Sequence[str]) -> Array:
    """Similarity on the scale where 0 is a wrong caption and 1 is the real picture; all [N].

    The mean over groups is the ratio of means, mean(similarity - wrong) / mean(right - wrong). Each value
    is the mean plus the caption's influence on that ratio (the delta method), so that the interval of
    the mean includes the uncertainty of the anchors.

    >>> anchored(np.array([0.10, 0.20, 0.30]), np.full(3, 0.10), np.full(3, 0.30), ["a", "b", "c"]).round(3).tolist()
    [0.0, 0.5, 1.0]
    """
    gap, excess = right - wrong, similarity - wrong
    mean_gap = group_means(gap, groups).mean()
    ratio = group_means(excess, groups).mean() / mean_gap
    return ratio + (excess - ratio * gap) / mean_gap


def retrieved(images: Array, texts: Array, groups: Sequence[str], first: int) -> Array:
    """Whether each picture's own caption is among the ``first`` of all groups' captions; 0 or 1, [N].

    A picture's own caption competes with one caption of every other group, the group's first, so that
    chance is exactly ``first`` / G. Captions of the picture's own group, see ``distinct``, do not compete.
    A caption that fits as well as its own comes before it.

    Args:
        images: [N, D] unit embeddings of pictures. texts: [N, D] of the captions they were drawn for.
        groups: [N], see ``distinct``.
        first: how many captions count as found.
    """
    names = np.array(groups, dtype=object)
    rivals = [groups.index(group) for group in dict.fromkeys(groups)]
    similarity = images @ texts[rivals].T
    others = names[:, None] != names[rivals][None, :]
    better = (similarity >= clip_similarity(images, texts)[:, None]) & others
    return (better.sum(axis=1) < first).astype(float)
