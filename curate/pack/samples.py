"""Turn kept pairs into samples: group the captions of each image, one shard at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from curate.pack.digest import digests
from curate.pack.plan import Plan
from curate.readers.scrub import COLUMN
from curate.run.companions import KINDS, location_column
from curate.run.ledger import HELD_OUT_BY
from curate.run.manifest import VERSION

_VERDICT = (
    *("kept", "rule", "reason", "status", "copy_group", "duplicate_of", "clip_model", "location"),
    *map(location_column, KINDS),
    COLUMN,
    HELD_OUT_BY,
)


class Samples:
    """The kept images of a ledger; ``rows`` builds their samples on demand."""

    def __init__(self, ledger: pd.DataFrame) -> None:
        kept = ledger[ledger["kept"]].drop(columns=list(_VERDICT), errors="ignore")
        self._pairs = kept.sort_values(
            ["key", "clip_similarity", "caption_index"], ascending=[True, False, True]
        )
        first = ~self._pairs["key"].duplicated()
        self._starts = np.append(np.flatnonzero(first), len(self._pairs))
        self._images = pd.Index(self._pairs.loc[first, "key"])
        self._sides = self._pairs.loc[first, "split"]
        self.formats = set(self._pairs["format"])

    def __len__(self) -> int:
        return len(self._images)

    def sides(self) -> dict[str, list[str]]:
        """The keys of each split."""
        return {
            str(side): self._images[(self._sides == side).to_numpy()].tolist()
            for side in self._sides.unique()
        }

    def digests(self, plans: Sequence[Plan], settings: str) -> list[str]:
        """For each shard a digest that changes whenever its bytes would, see ``digest.digests``."""
        import pyarrow as pa

        pairs, ends = self._pairs_of([key for planned in plans for key in planned.keys])
        images = np.cumsum([len(planned.keys) for planned in plans], dtype=np.int64)
        edges = [0, *ends[images - 1].tolist()]
        # Of captions only the order counts.
        names = sorted(self._pairs.columns.drop("caption_index"))

        def column(name: str) -> pa.Array:
            values = pa.array(self._pairs[name].take(pairs), from_pandas=True)
            return values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values

        return digests(((name, column(name)) for name in names), edges, f"{VERSION} {settings}")

    def _pairs_of(self, keys: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """The rows of the pairs of each key in turn, and where each key's rows end among them."""
        places = self._images.get_indexer(pd.Index(keys))
        counts = self._starts[places + 1] - self._starts[places]
        ends = np.cumsum(counts)
        rows = np.repeat(self._starts[places] - ends + counts, counts) + np.arange(counts.sum())
        return rows, ends

    def rows(self, keys: Sequence[str]) -> list[dict[str, Any]]:
        """One row per key: ``captions`` and ``similarity``, the most similar first, then other columns."""
        pairs, _ = self._pairs_of(keys)
        groups = self._pairs.iloc[pairs].groupby("key", sort=False)
        images = groups.first().drop(columns=["caption", "caption_index", "clip_similarity"])
        images["captions"] = groups["caption"].agg(list)
        images["similarity"] = groups["clip_similarity"].agg(_rounded)
        front = ["captions", "similarity"]
        ordered = [*front, *sorted(images.columns.difference(front))]
        records = images[ordered].reset_index().to_dict("records")
        return [{str(name): _plain(value) for name, value in row.items()} for row in records]


def _rounded(values: pd.Series) -> list[float | None]:
    return [None if pd.isna(value) else round(float(value), 6) for value in values]


def _plain(value: Any) -> Any:
    """A numpy scalar as a Python value; a missing value as None."""
    if isinstance(value, list):
        return value
    if pd.isna(value):
        return None
    return value.item() if hasattr(value, "item") else value
