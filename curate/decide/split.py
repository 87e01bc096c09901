"""Assign each duplicate group to train, val or test by hash, so that added data hardly moves a picture."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from curate.decide import neighbours
from curate.decide.config import HELD_OUT, SMALLEST_JUDGED, SplitConfig
from curate.decide.looks import numbers
from curate.run.hashing import GOLDEN, mix

LARGEST_FLOOR = 0.1  # the minimum never holds out more than this share of the images
LARGEST_HELD_OUT = 32  # images; larger groups stay in train
LEAK_COLUMNS = [
    *("key", "split", "other_key", "other_split"),
    *("bits", "mirrored", "same_url", "same_caption"),
]


def positions(groups: np.ndarray, seed: int) -> np.ndarray:
    """Numbers in [0, 1] (N,) that depend on nothing but each group's own (N,), uint64, and the seed.

    Groups are mixed as SplitMix64 mixes its states, so that no seed's sides resemble another's.
    """
    with np.errstate(over="ignore"):
        return mix(groups + np.uint64((seed + 1) * GOLDEN % 2**64)) / 2.0**64


def assign(groups: pd.Series, config: SplitConfig, frozen: pd.Series | None = None) -> pd.Series:
    """The side of each image, given its duplicate group; a group is never cut in two.

    Groups are placed on a line by their hash. ``val`` is the left end and ``test`` the right end of it,
    as long as their shares, so adding data moves nobody. If a share is fewer than ``config.minimum``
    images, or fewer than ``SMALLEST_JUDGED`` groups (the unit that a verdict counts in), its end grows
    until it has that many (at most a tenth of the data, and half of what may be held out); added data may
    then move groups at the edge back to train, and no others. A group with more images than its side
    should have, or than ``LARGEST_HELD_OUT``, stays in train.

    Groups that ``frozen`` has a side for stay there, however large, and the minimum counts them: the ends grow
    only for what they leave open. A share is of places on the line, so what is frozen at other places is held
    out on top of it; to take new groups only up to the share would move them when it opens again.

    Args:
        groups: of N images.
        config: shares and minimum.
        frozen: (N,) the side that each image's group is frozen on, "" for none, see ``frozen``.
    """
    hashes = numbers(groups)
    place = positions(hashes, config.seed)
    most_floor = int(LARGEST_FLOOR * len(groups))
    floor = min(config.minimum, most_floor)
    codes, _ = pd.factorize(hashes)
    size = np.bincount(codes)[codes]
    most = max(floor, min(config.val or 1, config.test or 1) * len(groups), 1)
    stays = np.full(len(groups), "") if frozen is None else frozen.to_numpy(str)
    may_go = (stays == "") & (size <= min(most, LARGEST_HELD_OUT))
    ascending = np.sort(place[may_go])
    held_out = Floor(floor, min(config.minimum, SMALLEST_JUDGED), most_floor)
    left = {side: held_out.beside(codes[stays == side]) for side in HELD_OUT}
    in_val = may_go & (place <= _reach(ascending, config.val, left["val"]))
    in_test = may_go & (1 - place <= _reach(1 - ascending[::-1], config.test, left["test"]))
    side = np.where(in_test, "test", np.where(in_val, "val", "train"))
    return pd.Series(np.where(stays != "", stays, side), index=groups.index, dtype="str")


@dataclass(frozen=True, slots=True)
class Floor:
    """What a held-out side has at least: so many ``images`` and ``groups``, in ``most`` images or fewer."""

    images: int
    groups: int
    most: int

    def beside(self, groups: np.ndarray) -> Floor:
        """What is left of it where these images are there already; ``groups`` (N,) has their groups."""
        there = len(groups), len(np.unique(groups)), len(groups)
        wanted = self.images, self.groups, self.most
        return Floor(*(max(0, want - has) for want, has in zip(wanted, there, strict=True)))

    def images_of(self, ascending: np.ndarray) -> int:
        """How many images that is, counted from the side's end; ``ascending`` (N,) has each image's group's place."""
        firsts = np.flatnonzero(np.diff(ascending, prepend=-1.0))
        ends = np.append(firsts[1:], len(ascending))
        groups = ends[min(self.groups, len(ends)) - 1] if self.groups else 0
        return min(max(self.images, min(groups, self.most)), len(ascending) // 2)


def _reach(ascending: np.ndarray, share: float, floor: Floor) -> float:
    """How far from its end a side reaches; below zero, so no group, for a share of 0."""
    if share == 0 or not len(ascending):
        return -1.0
    images = floor.images_of(ascending)
    return max(share, ascending[images - 1] if images else 0.0)


def leaks(table: pd.DataFrame, hamming_distance: int) -> pd.DataFrame:
    """Kept pictures on one side that look like, or come from the same address as, one on another.

    Duplicate groups leave none within ``split.hamming_distance`` that is alike by ``evidence.GROUPS``; the
    ledger holds no thumbnails, so plain pictures and recoloured drawings are listed here as well. Pass
    more bits, such as 8, to see what the groups may have missed. Of several pictures with the same hash
    or url on one side only the first is listed.

    Args:
        table: a ledger: rows with ``key, caption, kept, split, phash`` and perhaps ``phash_mirrored, url``.
        hamming_distance: bits of 64, 0 ... 16.

    Returns:
        One row for each pair, nearest first: ``key, split, other_key, other_split``, the ``bits`` in
        which their hashes differ, whether one's mirror image is nearer than itself, and whether they
        share the url and any kept caption.
    """
    kept = table[table["kept"]]
    images = kept.drop_duplicates("key")
    seen = _looks(images)
    codes, looks = pd.factorize(seen["look"].to_numpy(object))
    sides = np.zeros(len(looks), np.int64)
    np.bitwise_or.at(sides, codes, 1 << pd.factorize(seen["split"])[0])
    pairs = neighbours.hamming_pairs(numbers(looks), hamming_distance)
    one, other = neighbours.joined(_on_several(sides, pairs))
    alike = [(looks, looks), (looks[one], looks[other]), (looks[other], looks[one])]
    found = [_across(seen, "look", values, others) for values, others in alike]
    if "url" in images:
        urls = images.loc[images["url"].fillna("") != "", "url"].unique()
        found.append(_across(seen[~seen["mirrored"]], "url", urls, urls))
    pairs = pd.concat(found)
    pairs["bits"] = np.bitwise_count(numbers(pairs["look"]) ^ numbers(pairs["other_look"]))
    pairs["mirrored"] = pairs["mirrored"] != pairs["other_mirrored"]
    pairs = pairs.sort_values(["bits", "mirrored"]).drop_duplicates(["key", "other_key"])
    pairs["same_url"] = (
        (pairs["url"] == pairs["other_url"]) & (pairs["url"] != "") if "url" in images else False
    )
    pairs["same_caption"] = _share_a_caption(pairs, kept)
    return pairs.sort_values(["bits", "key", "other_key"])[LEAK_COLUMNS].reset_index(drop=True)


def _looks(images: pd.DataFrame) -> pd.DataFrame:
    """Each picture twice: ``look`` is its own hash, then its mirror image's."""
    plain = images.assign(look=images["phash"], mirrored=False)
    if "phash_mirrored" not in images:  # a ledger of an earlier version
        return plain
    return pd.concat([plain, images.assign(look=images["phash_mirrored"], mirrored=True)])


def _on_several(sides: np.ndarray, pairs: neighbours.Pairs) -> neighbours.Pairs:
    """The pairs of hashes whose pictures are on several sides; ``sides`` (N,) has a bit for each."""
    for one, other in pairs:
        apart = np.bitwise_count(sides[one] | sides[other]) > 1
        if apart.any():
            yield one[apart], other[apart]


def _across(
    images: pd.DataFrame, name: str, values: np.ndarray, others: np.ndarray
) -> pd.DataFrame:
    """Pairs on two sides: the first images of a value in column ``name`` and of its other value."""
    firsts = images.drop_duplicates([name, "split"])
    pairs = (
        pd.DataFrame({name: values, f"other_{name}": others})
        .merge(firsts, on=name)
        .merge(firsts.add_prefix("other_"), on=f"other_{name}")
    )
    apart = pairs["split"] != pairs["other_split"]
    return pairs[apart & (pairs["key"] < pairs["other_key"])]


def _share_a_caption(pairs: pd.DataFrame, kept: pd.DataFrame) -> list[bool]:
    involved = kept[kept["key"].isin({*pairs["key"], *pairs["other_key"]})]
    captions = involved.groupby("key")["caption"].agg(set)
    return [
        not captions[key].isdisjoint(captions[other])
        for key, other in zip(pairs["key"], pairs["other_key"], strict=True)
    ]
