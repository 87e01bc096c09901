"""Exact duplicates: images that show the same pixels, whatever their files are."""

from __future__ import annotations

import pandas as pd


def groups(annotations: pd.DataFrame) -> pd.Series:
    """The duplicate group of each row: 16 hex digits of the pixels' hash, "" for unreadable images.

    The name depends on nothing but the picture, so that the split by group moves nobody when data is
    added. Files of equal bytes decode to equal pixels and share a group as well.
    """
    return annotations["pixels"].str.slice(0, 16)


def copies(pairs: pd.DataFrame) -> pd.Series:
    """For each pair the key of the image to keep in its stead; "" where it is that image itself.

    Of several images in a group the one with the most similar caption stays, then the first by key.
    """
    best = pairs.groupby(["duplicate_group", "key"])[["clip_similarity"]].max().reset_index()
    best = best.sort_values("key").sort_values("clip_similarity", ascending=False, kind="stable")
    stays = best.drop_duplicates("duplicate_group").set_index("duplicate_group")["key"]
    keeper = pairs["duplicate_group"].map(stays)
    return keeper.where(keeper != pairs["key"], "")
