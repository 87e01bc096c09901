"""Siblings across the sides found in pandas with all rows in memory: an oracle for ``leaks``."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from curate.annotate.embeddings import Embeddings
from curate.decide import draw
from curate.decide.config import HELD_OUT
from curate.decide.leaks import COLUMNS, Leaks
from tests.curate.decide.naive_siblings import NEAR_CAPTIONS, few_of, read

LOOKED_AT = (
    2_000  # held-out pictures of a side, drawn by hash; a million training pictures take a minute
)

_NEAREST = 5  # whose captions are compared: of crops and rotations the original is the first or among these
_STREAM = 2_000  # of ``draw``; those of other draws are below
_BLOCK = 1 << 12


def measure(ledger: pd.DataFrame, embedded: Embeddings, level: float | None) -> Leaks:
    """Search the training pictures for siblings of the held-out ones.

    Args:
        ledger: all rows, numbered from 0, with ``key, caption, caption_index, kept, split,
            duplicate_group``.
        embedded: embeddings of the same rows.
        level: of ``siblings.Siblings``.
    """
    kept = ledger[ledger["kept"]]
    if level is None or kept.empty:
        return Leaks()
    table, names, words = read(kept, kept["duplicate_group"])
    rows = table.index.to_numpy() - table["caption_index"].to_numpy()
    sides = table["split"].to_numpy(str)
    held_out = _drawn(names, sides)
    vectors = embedded.images_or_zero(rows[held_out])
    there = vectors.any(axis=1)
    held_out, vectors = held_out[there], vectors[there]
    train = np.flatnonzero(sides == "train")
    near, cosines = _nearest(vectors, _blocks(embedded, rows, train))
    one = np.repeat(held_out, near.shape[1])
    other = np.maximum(near.ravel(), 0)
    shared = words.shared(one, other).reshape(near.shape)
    # By Spärck Jones' weights; in CIFAR-10 the nearest pictures of "a photo of a dog" are other dogs.
    rare = np.log((words.groups.max() + 1) / few_of(words))
    is_rare = words.weight_of_both(one, other).reshape(near.shape) >= rare - 1e-9
    counts = is_rare & (near >= 0) & (cosines >= level) & (shared >= NEAR_CAPTIONS)
    first = counts.argmax(axis=1)[:, None]
    has = counts.any(axis=1)
    own, twin = (
        table.iloc[at].reset_index(drop=True)
        for at in (held_out[has], np.take_along_axis(near, first, 1)[has, 0])
    )
    pairs = own[["key", "split", "caption"]].assign(
        other_key=twin["key"],
        other_caption=twin["caption"],
        cosine=np.take_along_axis(cosines, first, 1)[has, 0],
        shared=np.take_along_axis(shared, first, 1)[has, 0],
    )
    pairs = pairs.sort_values(["cosine", "key"], ascending=[False, True], ignore_index=True)
    looked_at = {side: int((sides[held_out] == side).sum()) for side in HELD_OUT}
    return Leaks(pairs[COLUMNS], looked_at, level)


def _drawn(names: np.ndarray, sides: np.ndarray) -> np.ndarray:
    """Positions of the held-out pictures that are looked at."""
    found = []
    for side in HELD_OUT:
        of_side = np.flatnonzero(sides == side)
        found.append(of_side[draw.drawn(names[of_side], LOOKED_AT, _STREAM)])
    return np.concatenate(found)


def _blocks(
    embedded: Embeddings, rows: np.ndarray, positions: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Positions (n,) of pictures and their embeddings (n, D), from the parts in turn."""
    order = np.argsort(rows[positions])
    wanted = rows[positions][order]
    for found, vectors in embedded.image_blocks():
        place = np.minimum(np.searchsorted(wanted, found), max(len(wanted) - 1, 0))
        among = wanted[place] == found if len(wanted) else np.zeros(len(found), bool)
        at, taken = positions[order[place[among]]], vectors[among]
        for start in range(0, len(at), _BLOCK):
            yield at[start : start + _BLOCK], taken[start : start + _BLOCK]


def _nearest(
    vectors: np.ndarray, blocks: Iterator[tuple[np.ndarray, np.ndarray]]
) -> tuple[np.ndarray, np.ndarray]:
    """The positions and cosines of the ``_NEAREST`` of each vector (M, D), nearest first; -1 where too few.

    All are sorted, by cosines in double precision; of equal ones the lesser position is first.
    """
    found = [*blocks]
    at = np.concatenate([np.full(_NEAREST, -1), *(places for places, _ in found)])
    cosines = np.full((len(vectors), len(at)), -2.0)
    if found and len(vectors):
        others = np.concatenate([block for _, block in found]).astype(float)
        cosines[:, _NEAREST:] = [
            (row * others).sum(axis=1).round(6) for row in vectors.astype(float)
        ]
    first = np.array([np.lexsort((at, -row))[:_NEAREST] for row in cosines], int)
    first = first.reshape(len(vectors), _NEAREST)
    return at[first], np.take_along_axis(cosines, first, 1)
