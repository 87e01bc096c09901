"""Frozen groups: those that hold a picture of ``split.held_out``, which stay on its side whatever their hash says.

A picture is known again by the hash of its file or of its pixels, or, where its file was saved again, by its key
and a near perceptual hash. A key alone says nothing, since another picture may be under it by now. The whole
group is frozen, with all that joined it, even where the picture itself is dropped by now: what is left are its
near copies. A group that holds pictures of both sides goes to ``test``, whose pictures must never have a part in
choosing a checkpoint.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa

from curate.decide.config import HELD_OUT
from curate.decide.held_out import digest
from curate.decide.looks import numbers
from curate.decide.split import LARGEST_HELD_OUT
from curate.measures.phash import PIXELS_DIGITS
from curate.run.database import quoted, registered

if TYPE_CHECKING:
    import duckdb

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


class Frozen:
    """The pictures of a table among those of a data set, in tables of a connection.

    ``frozen_images(image, rank)``: the listed pictures, with the rank of their side in the table.
    ``frozen_groups(name, rank, side, key)``: groups that hold some, and the picture that each is held out by.
    """

    def __init__(self, connection: duckdb.DuckDBPyConnection, table: pd.DataFrame) -> None:
        """Look the pictures of ``table``, of ``held_out``, up.

        Args:
            connection: with the view ``images`` and a table ``groups(image, name)`` of all decoded images.
            table: of ``held_out``.
        """
        self._connection, self._table = connection, table
        with registered(connection, "given", _numbered(table)):
            connection.sql("CREATE TABLE held_out AS SELECT * FROM given")
        connection.sql(f"CREATE TABLE known_again AS {_KNOWN_AGAIN}")
        connection.sql(
            "CREATE TABLE frozen_images AS SELECT image, max(rank) AS rank FROM known_again "
            "JOIN held_out USING (place) WHERE is_same GROUP BY image"
        )
        sides = f"[{', '.join(map(quoted, _SIDES))}]"
        # The highest side of a group first, then the least key.
        connection.sql(
            f"CREATE TABLE frozen_groups AS SELECT name, rank, {sides}[rank + 1] AS side, key FROM ("
            "SELECT name, max(rank) AS rank, arg_min(key, struct_pack(a := -rank, b := key)) AS key "
            "FROM frozen_images JOIN groups USING (image) JOIN images USING (image) GROUP BY name)"
        )

    def outcome(self) -> HeldOutAgain:
        """What became of the listed pictures, by the verdicts.

        They are in a table ``image_fates(image, fate)``: the side of each image, or the rule that drops it, of
        several captions the first; and ``kept_images(image, split, name)``.
        """
        fates = self._fates()
        sides = {side: fates.pop(side, 0) for side in HELD_OUT}
        joined, moved, of_both = self._row(
            "SELECT count(*) FILTER (own.rank IS NULL), count(*) FILTER (own.rank < whole.rank), "
            "count(DISTINCT name) FILTER (own.rank < whole.rank) FROM kept_images "
            "JOIN frozen_groups AS whole USING (name) LEFT JOIN frozen_images AS own USING (image)"
        )
        large, in_large = self._row(
            "SELECT count(*), coalesce(sum(images), 0)::BIGINT FROM (SELECT count(*) AS images "
            "FROM kept_images JOIN frozen_groups USING (name) GROUP BY name) "
            f"WHERE images > {LARGEST_HELD_OUT}"
        )
        return HeldOutAgain(
            digest=digest(self._table),
            listed=len(self._table),
            sides=sides,
            left=dict(sorted(fates.items())),
            joined=joined,
            of_both=of_both,
            moved=moved,
            large=large,
            in_large=in_large,
        )

    def _fates(self) -> dict[str, int]:
        """How many rows of the table had which fate: the best of the pictures that they are known again by."""
        found = self._connection.sql("SELECT DISTINCT fate FROM image_fates").fetchall()
        order = [*HELD_OUT, *sorted({fate for (fate,) in found} - {*HELD_OUT}), REPLACED, GONE]
        listed = f"[{', '.join(map(quoted, order))}]"
        replaced, gone = len(order) - 1, len(order)  # counted from 1, as SQL does
        rows = self._connection.sql(
            f"SELECT {listed}[best], count(*) FROM (SELECT coalesce(min(CASE "
            f"WHEN image IS NULL THEN NULL WHEN is_same OR is_unknown THEN list_position({listed}, fate) ELSE {replaced} END), {gone}) AS best "
            "FROM held_out LEFT JOIN known_again USING (place) LEFT JOIN image_fates USING (image) "
            "GROUP BY place) GROUP BY ALL"
        ).fetchall()
        return dict(rows)

    def _row(self, query: str) -> tuple[Any, ...]:
        return self._connection.sql(query).fetchall()[0]


JOINED = "LEFT JOIN frozen_groups ON frozen_groups.name = groups.name LEFT JOIN frozen_images USING (image)"
"""What a query of ``images`` and ``groups`` joins to say ``BY``."""

BY = (
    "CASE WHEN frozen_images.rank = frozen_groups.rank THEN images.key "
    "ELSE coalesce(frozen_groups.key, '') END"
)
"""The key of the picture that a picture's group is held out by, "" for none; its own where it is listed on that side
itself."""

_KNOWN_AGAIN = f"""
SELECT place, image, true AS is_same, false AS is_unknown FROM held_out
JOIN images ON held_out.sha256 = images.sha256 WHERE held_out.sha256 <> ''
UNION ALL
SELECT place, image, true, false FROM held_out JOIN images ON held_out.pixels = images.pixels
UNION ALL
SELECT place, image, coalesce(bit_count(xor(held_out.phash, images.phash)) <= {NEAR_BITS}, false),
    images.phash IS NULL
FROM held_out JOIN images ON held_out.key = images.key
"""
"""Rows of the table and pictures that may be theirs. Under the key alone, a picture that was not decoded may be
the same (``is_unknown``: nothing says that it is another one)."""


def _numbered(table: pd.DataFrame) -> pa.Table:
    """The table with its rows' ``place``, the ``rank`` of their side, and hashes as numbers, null where not known."""
    columns = {
        name: pa.array(table[name].to_numpy(object), pa.string()) for name in ("key", "sha256")
    }
    for name, column in (("pixels_sha256", "pixels"), ("phash", "phash")):
        digits = table[name].str.slice(0, PIXELS_DIGITS)
        known = (digits.str.len() == PIXELS_DIGITS).to_numpy(bool)
        spread = np.zeros(len(table), np.uint64)
        spread[known] = numbers(digits[known])
        columns[column] = pa.array(spread, mask=~known)
    ranks = table["split"].map(_SIDES.index).to_numpy(np.int64)
    return pa.table({**columns, "place": np.arange(len(table)), "rank": ranks})
