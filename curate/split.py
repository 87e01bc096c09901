"""Which side a duplicate group is on: train, val or test, by hash, the same for ever."""

from __future__ import annotations

import hashlib

import numpy as np
import pandas as pd

from curate.config import SplitConfig

SIDES = ("train", "val", "test")
LARGEST_FLOOR = 0.1  # a floor never takes more than this share of the images


def position(group: str, seed: int) -> float:
    """A number in [0, 1) that depends on nothing but the group and the seed."""
    digest = hashlib.blake2b(group.encode(), digest_size=8, salt=str(seed).encode()[:16])
    return int.from_bytes(digest.digest(), "big") / 2**64


def assign(groups: pd.Series, config: SplitConfig) -> pd.Series:
    """The side of each image, given its duplicate group; a group is never cut in two.

    Groups stand on a line by their hash. ``val`` takes its share from the left end and ``test`` from
    the right one, so adding data moves nobody. Where a share is less than ``config.minimum`` images
    its end grows until the floor is met (or a tenth of the data is used up); then added data may move
    groups back to train, and only those at the edge.
    """
    positions = groups.map(
        {group: position(group, config.seed) for group in groups.unique()}
    ).astype(float)
    floor = min(config.minimum, int(LARGEST_FLOOR * len(groups)))
    ascending = np.sort(positions.to_numpy())
    side = pd.Series("train", index=groups.index)
    side[positions <= _reach(ascending, config.val, floor)] = "val"
    side[1 - positions <= _reach(1 - ascending[::-1], config.test, floor)] = "test"
    return side


def _reach(ascending: np.ndarray, share: float, floor: int) -> float:
    """How far from its end a side reaches; nothing at all for a share of 0."""
    if share == 0 or not len(ascending):
        return -1.0
    return max(share, ascending[floor - 1] if floor else 0.0)
