"""Assign each duplicate group to train, val or test by hash, so that added data hardly moves a picture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pyarrow as pa

from curate.decide import neighbours
from curate.decide.config import SMALLEST_JUDGED, SplitConfig
from curate.decide.looks import numbers
from curate.run.hashing import GOLDEN, mix

if TYPE_CHECKING:
    import duckdb

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


def assign(connection: duckdb.DuckDBPyConnection, config: SplitConfig) -> None:
    """The side of each duplicate group, in a table ``group_sides(name, side)``; a group is never cut in two.

    Groups are placed on a line by their hash. ``val`` is the left end and ``test`` the right end of it,
    as long as their shares, so adding data moves nobody. If a share is fewer than ``config.minimum``
    images, or fewer than ``SMALLEST_JUDGED`` groups (the unit that a verdict counts in), its end grows
    until it has that many (at most a tenth of the data, and half of what may be held out); added data may
    then move groups at the edge back to train, and no others. A group with more images than its side
    should have, or than ``LARGEST_HELD_OUT``, stays in train.

    Frozen groups stay on their side, however large, and the minimum counts them: the ends grow
    only for what they leave open. A share is of places on the line, so what is frozen at other places is held
    out on top of it; to take new groups only up to the share would move them when it opens again.

    Args:
        connection: with a table ``kept_groups(name UBIGINT, images BIGINT, stays VARCHAR)``: how many kept images
            each group has, and the side that it is frozen on, "" for none, see ``frozen``.
        config: shares and minimum.
    """
    _place(connection, config.seed)
    ((count,),) = connection.sql("SELECT coalesce(sum(images), 0)::BIGINT FROM placed").fetchall()
    most_floor = int(LARGEST_FLOOR * count)
    floor = min(config.minimum, most_floor)
    most = max(floor, min(config.val or 1, config.test or 1) * count, 1)
    held_out = Floor(floor, min(config.minimum, SMALLEST_JUDGED), most_floor)
    movable = f"stays = '' AND images <= {min(most, LARGEST_HELD_OUT)!r}"
    reach = {}
    for side, distance in _DISTANCES.items():
        left = held_out.beside(*_there(connection, side))
        _create_line(
            connection, f"SELECT {distance} AS distance, images FROM placed WHERE {movable}", left
        )
        query = f"SELECT coalesce(sum(images), 0)::BIGINT FROM placed WHERE {movable}"
        ((movables,),) = connection.sql(query).fetchall()
        reach[side] = _reach(connection, getattr(config, side), left, movables)
    connection.sql("DROP TABLE line")
    connection.sql(
        "CREATE TABLE group_sides AS SELECT name, CASE WHEN stays <> '' THEN stays "
        f"WHEN {movable} AND {_DISTANCES['test']} <= {reach['test']!r}::DOUBLE THEN 'test' "
        f"WHEN {movable} AND {_DISTANCES['val']} <= {reach['val']!r}::DOUBLE THEN 'val' "
        "ELSE 'train' END AS side FROM placed"
    )
    connection.sql("DROP TABLE placed")


_DISTANCES = {"val": "place", "test": "(1.0::DOUBLE - place)"}
"""Of a place from the end of the line that each side is at."""


def _place(connection: duckdb.DuckDBPyConnection, seed: int) -> None:
    """Create ``placed``: ``kept_groups`` with their ``place`` on the line."""
    from duckdb.func import ARROW

    def place(names: pa.ChunkedArray) -> pa.Array:
        return pa.array(positions(names.to_numpy(zero_copy_only=False), seed))

    connection.create_function("place_of", place, ["UBIGINT"], "DOUBLE", type=ARROW)
    connection.sql("CREATE TEMP TABLE placed AS SELECT *, place_of(name) AS place FROM kept_groups")
    connection.remove_function("place_of")


def _there(connection: duckdb.DuckDBPyConnection, side: str) -> tuple[int, int]:
    """How many images, and groups, are frozen on a side."""
    query = "SELECT coalesce(sum(images), 0)::BIGINT, count(*) FROM placed WHERE stays = ?"
    return connection.sql(query, params=[side]).fetchall()[0]


@dataclass(frozen=True, slots=True)
class Floor:
    """What a held-out side has at least: so many ``images`` and ``groups``, in ``most`` images or fewer."""

    images: int
    groups: int
    most: int

    def beside(self, images: int, groups: int) -> Floor:
        """What is left of it where so many are there already."""
        return Floor(
            max(0, self.images - images), max(0, self.groups - groups), max(0, self.most - images)
        )


def _create_line(connection: duckdb.DuckDBPyConnection, groups: str, floor: Floor) -> None:
    """Create ``line``: the least distances, how many images are as near or nearer (``up_to``), and their place (``nth``).

    Each distance has an image at least, so no more of them are looked at than the floor has images and groups. A
    running sum over all would hold all of them in memory.

    Args:
        connection: with the tables of ``groups``.
        groups: a query of ``distance, images`` of the groups that may be held out.
        floor: of this side.
    """
    connection.sql(
        "CREATE OR REPLACE TEMP TABLE line AS SELECT distance, "
        "(sum(images) OVER (ORDER BY distance))::BIGINT AS up_to, "
        "row_number() OVER (ORDER BY distance) AS nth "
        f"FROM (SELECT distance, sum(images) AS images FROM ({groups}) GROUP BY distance "
        f"ORDER BY distance LIMIT {max(floor.images, floor.groups, 1)})"
    )


def _reach(connection: duckdb.DuckDBPyConnection, share: float, floor: Floor, count: int) -> float:
    """How far from its end a side reaches; below zero, so no group, for a share of 0.

    The table ``line`` has what this asks for, see ``_create_line``; ``count`` images may be held out.
    """
    ((places,),) = connection.sql("SELECT count(*) FROM line").fetchall()
    if share == 0 or not count:
        return -1.0
    groups = 0
    if floor.groups:
        query = "SELECT up_to FROM line WHERE nth = ?"
        ((groups,),) = connection.sql(query, params=[min(floor.groups, places)]).fetchall()
    images = min(max(floor.images, min(groups, floor.most)), count // 2)
    if not images:
        return max(share, 0.0)
    query = "SELECT min(distance) FROM line WHERE up_to >= ?"
    ((farthest,),) = connection.sql(query, params=[images]).fetchall()
    return max(share, farthest)


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
