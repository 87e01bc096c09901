"""Groups named in pandas with all rows in memory: an oracle for ``group_names``."""

from __future__ import annotations

from hashlib import blake2b

import numpy as np
import pandas as pd


def group_names(
    labels: np.ndarray, pixels: pd.Series, numbers: np.ndarray, given: pd.Series | None
) -> pd.Series:
    """The name of each picture's group: 16 hex digits, the hash of the least ``given`` name in it.

    A group to which the source gave no name is called after the least hash of its pictures' pixels.

    Args:
        labels: the group of each picture, (N,) integer, in any numbering.
        pixels: the first 16 digits of the hash of each picture's pixels.
        numbers: the same as (N,) uint64.
        given: what the source says the picture shows, such as a photo's id; "" or missing if nothing.

    Returns:
        The names, in the index of ``pixels``.
    """
    least = pixels.iloc[_least_of_group(labels, numbers)].set_axis(pixels.index)
    if given is None:
        return least
    name = given.where(given != "").groupby(labels).transform("min")
    digits = {text: _hash(text) for text in name.dropna().unique()}
    return name.map(digits).fillna(least)


def _hash(name: str) -> str:
    return blake2b(name.encode(), digest_size=8).hexdigest()


def _least_of_group(labels: np.ndarray, values: np.ndarray) -> np.ndarray:
    """For each position that of the least value with the same label; all of shape (N,)."""
    order = np.lexsort((values, labels))
    begins = np.append(True, labels[order][1:] != labels[order][:-1])[: len(order)]
    leader = np.empty(len(order), np.int64)
    leader[order] = order[np.flatnonzero(begins)][np.cumsum(begins) - 1]
    return leader
