"""Find each pair of one ledger in another one: by what it holds first, by its key where that has changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd


@dataclass(frozen=True, slots=True)
class Matches:
    """Rows of two ledgers, by position.

    Attributes:
        before, now: (M,) rows of the pairs that both ledgers have, one of each at a time.
        gone: rows of the first ledger that the second one lacks. added: the other way round.
    """

    before: np.ndarray
    now: np.ndarray
    gone: np.ndarray
    added: np.ndarray


def match(before: pd.DataFrame, now: pd.DataFrame) -> Matches:
    """The pairs of two ledgers matched one to one, whatever the order of the rows.

    In this order, each step among the pairs that the earlier ones left: the same picture and caption under the same
    key; under another key (renamed); the same caption under the same key with another picture; the same key. Equal
    ones are taken in the order of their keys, then of ``caption_index``.

    Args:
        before, now: with ``key, caption_index, caption, sha256`` and no missing values; "" is the hash of a picture
            that is not known, which equals no other picture's under another key.
    """
    count = len(before)
    keys, pictures, captions = (
        _codes(before[name], now[name]) for name in ("key", "sha256", "caption")
    )
    known = np.concatenate([(frame["sha256"] != "").to_numpy(bool) for frame in (before, now)])
    index = np.concatenate([frame["caption_index"].to_numpy(np.int64) for frame in (before, now)])
    order = np.lexsort((captions, index, keys))
    left = [order[order < count], order[order >= count]]
    found: list[tuple[np.ndarray, np.ndarray]] = []
    for codes, needs_picture in (
        ((keys, pictures, captions), False),
        ((pictures, captions), True),
        ((keys, captions), False),
        ((keys,), False),
    ):
        asked = [rows[known[rows]] if needs_picture else rows for rows in left]
        pairs = _paired(asked[0], asked[1], codes)
        found.append(pairs)
        left = [_without(rows, taken, len(keys)) for rows, taken in zip(left, pairs, strict=True)]
    first, second = (np.concatenate([pairs[side] for pairs in found]) for side in (0, 1))
    sequence = np.lexsort((index[second], keys[second]))
    return Matches(first[sequence], second[sequence] - count, left[0], left[1] - count)


def _codes(before: pd.Series, now: pd.Series) -> np.ndarray:
    """A number for each distinct text of both, in the order of the texts: (N + M,) int64."""
    texts = pd.concat([before, now], ignore_index=True)
    return pd.factorize(texts, sort=True)[0].astype(np.int64)


def _paired(
    before: np.ndarray, now: np.ndarray, codes: Sequence[np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Rows that agree in all ``codes``, the nth of one side with the nth of the other."""
    rows = np.concatenate([before, now])
    joint = np.zeros(len(rows), np.int64)
    for code in codes:
        joint = _joined(joint, code[rows])
    cut = len(before)
    numbers = np.concatenate([_number(joint[:cut]), _number(joint[cut:])])
    joint = _joined(joint, numbers)
    _, first, second = np.intersect1d(
        joint[:cut], joint[cut:], assume_unique=True, return_indices=True
    )
    return before[first], now[second]


def _joined(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """A number from 0 for each distinct combination; none overflows, as both stay below the number of rows."""
    width = int(other.max(initial=0)) + 1
    return pd.factorize(one * width + other)[0].astype(np.int64)


def _number(codes: np.ndarray) -> np.ndarray:
    """How many equal codes come earlier."""
    return pd.Series(codes).groupby(codes).cumcount().to_numpy(np.int64)


def _without(rows: np.ndarray, taken: np.ndarray, count: int) -> np.ndarray:
    gone = np.zeros(count, bool)
    gone[taken] = True
    return rows[~gone[rows]]
