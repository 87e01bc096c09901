"""Which pairs are shuffled, and how: by hashes of key and caption index, so in whatever order they come."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from curate.annotate.hash_index import name_of
from curate.run.hashing import GOLDEN, mix


def pair_numbers(keys: Sequence[str] | pd.Series, indices: np.ndarray) -> np.ndarray:
    """A hash of each pair's key and caption index (N,), integer: (N,) uint64."""
    codes, distinct = pd.factorize(np.asarray(keys, object))
    images = np.fromiter(map(name_of, distinct), np.uint64, len(distinct))
    return mix(_plus(images[codes], indices.astype(np.uint64) + np.uint64(1)))


def drawn(numbers: np.ndarray, count: int, stream: int) -> np.ndarray:
    """The ``count`` pairs with the least hashes, in ascending order of these: their positions (M,).

    Whatever other pairs there are, of two pairs the same one is drawn first.

    Args:
        numbers: of `pair_numbers`, (N,) uint64.
        count: how many to draw; all where there are fewer.
        stream: another one draws others.
    """
    return np.argsort(_hashes(numbers, stream), kind="stable")[:count]


def partners(numbers: np.ndarray, stream: int) -> np.ndarray:
    """For each pair the position of the one whose caption it is given: (N,).

    In ascending order of their hashes the pairs form a circle, in which each is given the caption of
    the next. So every caption is given once, and none to its own image unless it is alone.

    Args:
        numbers: of `pair_numbers`, (N,) uint64.
        stream: another one shuffles otherwise.
    """
    circle = np.argsort(_hashes(numbers, stream), kind="stable")
    found = np.empty(len(numbers), np.int64)
    found[circle] = np.roll(circle, -1)
    return found


def _hashes(numbers: np.ndarray, stream: int) -> np.ndarray:
    return mix(_plus(numbers, np.uint64(stream + 1)))


def _plus(numbers: np.ndarray, steps: np.ndarray | np.uint64) -> np.ndarray:
    """``numbers`` as many steps ahead in SplitMix64's sequence of states."""
    with np.errstate(over="ignore"):
        return numbers + steps * np.uint64(GOLDEN)
