"""Frozen groups: those that hold a picture of ``split.held_out``, which stay on its side whatever their hash says.

A picture is known again by the hash of its file or of its pixels, or, where its file was saved again, by its key
and a near perceptual hash. A key alone says nothing, since another picture may be under it by now. The whole
group is frozen, with all that joined it, even where the picture itself is dropped by now: what is left are its
near copies. A group that holds pictures of both sides goes to ``test``, whose pictures must never have a part in
choosing a checkpoint.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from curate.decide.config import HELD_OUT
from curate.decide.held_out import digest
from curate.decide.looks import numbers
from curate.decide.split import LARGEST_HELD_OUT
from curate.measures.phash import PIXELS_DIGITS

NEAR_BITS = 4  # of 64, in which a photograph that was saved again differs at most

REPLACED, GONE = "replaced", "gone"

_SIDES = ("", *HELD_OUT)  # by rank; of several, the highest counts


@dataclass(frozen=True, slots=True)
class HeldOutAgain:
    """What became of the pictures of ``split.held_out``.

    Attributes:
        digest: of the table, see ``held_out.digest``.
        listed: pictures of the table.
        sides: of these, how many are held out again, by side.
        left: the others: how many, by the rule that drops them (``unreadable``, ``removed`` and ``duplicate``
            are among these), or ``REPLACED``, another picture is under their key, or ``GONE``.
        joined: pictures that are held out only because a listed one is in their group.
        of_both: groups that hold listed pictures of both sides; all are on ``test``.
        moved: listed pictures of ``val`` in these.
        large: groups of more than ``LARGEST_HELD_OUT`` pictures, which would not be held out by their hash.
        in_large: pictures in these.
    """

    digest: str
    listed: int
    sides: dict[str, int]
    left: dict[str, int] = field(default_factory=dict)
    joined: int = 0
    of_both: int = 0
    moved: int = 0
    large: int = 0
    in_large: int = 0


@dataclass(frozen=True, slots=True)
class Frozen:
    """The pictures of a table among those of a data set.

    Attributes:
        table: of ``held_out``.
        pictures: a row for each picture, by its key: ``rank`` of the side that the table has it on, 0 for none;
            ``group_rank``, of its group; ``by``, the key of the picture that its group is held out by, "" where
            it is not, its own where it is listed on that side itself.
    """

    table: pd.DataFrame
    pictures: pd.DataFrame

    @classmethod
    def find(cls, pairs: pd.DataFrame, table: pd.DataFrame) -> Frozen:
        """Look the pictures of ``table`` up.

        Args:
            pairs: rows with ``key, sha256, pixels_sha256, phash, duplicate_group``; the last three are "" where
                the image was not decoded, and the group of these is none.
            table: of ``held_out``.
        """
        named = ["key", "sha256", "pixels_sha256", "phash", "duplicate_group"]
        pictures = pairs[named].drop_duplicates("key")
        pictures = pictures.assign(rank=_ranks(pictures, table))
        listed = pictures[(pictures["rank"] > 0) & (pictures["duplicate_group"] != "")]
        # The highest side of a group first, then the least key.
        first = listed.sort_values(["rank", "key"], ascending=[False, True])
        first = first.drop_duplicates("duplicate_group").set_index("duplicate_group")
        group_rank = pictures["duplicate_group"].map(first["rank"]).fillna(0).astype("int64")
        by = pictures["duplicate_group"].map(first["key"]).astype("str").fillna("")
        other = (pictures["rank"] == 0) | (pictures["rank"] != group_rank)
        by = by.where(other, pictures["key"])
        return cls(table, pictures.assign(group_rank=group_rank, by=by).set_index("key"))

    def sides(self, keys: pd.Index) -> pd.Series:
        """The side that each picture is frozen on, "" for none."""
        ranks = self.pictures["group_rank"].reindex(keys).to_numpy()
        return pd.Series(np.array(_SIDES, object)[ranks], keys, dtype="str")

    def by(self, keys: pd.Series) -> pd.Series:
        """For each row the key of the picture that its group is held out by, "" for none."""
        return keys.map(self.pictures["by"]).astype("str")

    def outcome(self, ledger: pd.DataFrame) -> HeldOutAgain:
        """What became of the listed pictures, by the verdicts: rows with ``key, kept, rule, split``."""
        fates = self._fates(_fate_of(ledger))
        kept = self.pictures.loc[ledger.loc[ledger["kept"], "key"].unique()]
        own, frozen = kept["rank"] > 0, kept["group_rank"] > 0
        moves = kept[own & (kept["rank"] < kept["group_rank"])]
        size = kept.loc[frozen, "duplicate_group"].value_counts()
        large = size[size > LARGEST_HELD_OUT]
        sides = {side: int((fates == side).sum()) for side in HELD_OUT}
        left = fates[~fates.isin(HELD_OUT)].value_counts()
        return HeldOutAgain(
            digest=digest(self.table),
            listed=len(self.table),
            sides=sides,
            left={str(fate): int(count) for fate, count in sorted(left.items())},
            joined=int((frozen & ~own).sum()),
            of_both=moves["duplicate_group"].nunique(),
            moved=len(moves),
            large=len(large),
            in_large=int(large.sum()),
        )

    def _fates(self, fate_of: pd.Series) -> pd.Series:
        """What became of each row of the table: the best fate of the pictures that it is known again by.

        Args:
            fate_of: by key, see ``_fate_of``.
        """
        order = [*HELD_OUT, *sorted({*fate_of} - {*HELD_OUT}), REPLACED, GONE]
        place = fate_of.map(order.index).reindex(self.pictures.index)
        pictures = self.pictures.reset_index().assign(place=place.to_numpy())
        best = pd.Series(len(order) - 1, self.table.index)
        for known, values in _identities(pictures, self.table):
            places = pictures["place"].groupby(known.to_numpy()).min()
            best = np.minimum(best, values.map(places).fillna(len(order) - 1))
        same = _under_the_key(pictures, self.table)
        undecoded = same["phash_now"] == ""  # nothing says that it is another picture
        place = same["place"].where(same["is_near"] | undecoded, order.index(REPLACED))
        ends = place.groupby(same["row"]).min()
        best = np.minimum(best, ends.reindex(self.table.index).fillna(len(order) - 1))
        return pd.Series(np.array(order, object)[best.astype("int64")], self.table.index)


def _fate_of(ledger: pd.DataFrame) -> pd.Series:
    """For each key its side, or the rule that drops its first caption."""
    ordered = ledger[["key", "kept", "rule", "split"]].sort_values(
        "kept", ascending=False, kind="stable"
    )
    first = ordered.drop_duplicates("key").set_index("key")
    return first["rule"].where(~first["kept"], first["split"])


def _ranks(pictures: pd.DataFrame, table: pd.DataFrame) -> np.ndarray:
    """The rank (N,) of the side that the table has each picture on; 0 for none."""
    of_row = table["split"].map(_SIDES.index).astype("int64")
    same = _under_the_key(pictures, table)
    near = same[same["is_near"]]
    by_key = of_row.loc[near["row"]].groupby(near["key"].to_numpy()).max()
    found = [pictures["key"].map(by_key)]
    for known, values in _identities(pictures, table):
        found.append(known.map(of_row.groupby(values.to_numpy()).max()))
    return np.stack([ranks.fillna(0).astype("int64") for ranks in found]).max(axis=0)


def _identities(
    pictures: pd.DataFrame, table: pd.DataFrame
) -> Iterator[tuple[pd.Series, pd.Series]]:
    """What says that two pictures are the same where it is equal, of both; missing where not known."""
    for name in ("sha256", "pixels_sha256"):
        values = (each[name] for each in (pictures, table))
        if name == "pixels_sha256":
            values = (each.str.slice(0, PIXELS_DIGITS) for each in values)
        of_pictures, of_table = (each.where(each != "") for each in values)
        yield of_pictures, of_table


def _under_the_key(pictures: pd.DataFrame, table: pd.DataFrame) -> pd.DataFrame:
    """Rows of the table whose key is in the data: ``row``, the picture there now, and whether it looks the same."""
    rows = table[["key", "phash"]].assign(row=table.index)
    same = rows.merge(pictures.rename(columns={"phash": "phash_now"}), on="key")
    hashed = (same["phash"].str.len() == 16) & (same["phash_now"].str.len() == 16)
    near = pd.Series(False, same.index)
    one, other = (numbers(same.loc[hashed, name]) for name in ("phash", "phash_now"))
    near[hashed] = np.bitwise_count(one ^ other) <= NEAR_BITS
    return same.assign(is_near=near)
