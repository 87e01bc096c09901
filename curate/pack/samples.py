"""Turn the kept pairs of a shard into its samples: the captions of each image, the most similar first."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from curate.pack.digest import digests
from curate.readers.scrub import COLUMN
from curate.run.companions import KINDS, location_column
from curate.run.ledger import HELD_OUT_BY
from curate.run.manifest import VERSION

if TYPE_CHECKING:
    import pyarrow as pa

LOCATION = "location"
LOCATIONS = (LOCATION, *map(location_column, KINDS))
_VERDICT = (
    *("kept", "rule", "reason", "status", "copy_group", "duplicate_of", "clip_model", "shard"),
    COLUMN,
    HELD_OUT_BY,
)
_JOINED = ("captions", "similarity")  # of an image's pairs


def stored(names: Iterable[str]) -> list[str]:
    """Those of a ledger's columns that go into shards."""
    return [name for name in names if name not in (*_VERDICT, *LOCATIONS)]


class Samples:
    """The samples of a shard, or of some other kept pairs."""

    def __init__(self, pairs: pa.Table) -> None:
        """Take the rows of a ledger: those of an image one after another, the most similar caption first."""
        self._pairs = pairs.combine_chunks()
        self._keys = self._pairs["key"].to_pylist()
        starts = [0] if self._keys else []
        starts += [i for i in range(1, len(self._keys)) if self._keys[i] != self._keys[i - 1]]
        self._images = list(pairwise([*starts, len(self._keys)]))

    def __len__(self) -> int:
        return len(self._images)

    def digest(self, settings: str) -> str:
        """Of all that goes into the shard; it changes whenever the shard's bytes would.

        Args:
            settings: what the bytes depend on beside the rows.
        """
        # Of captions only the order counts.
        names = sorted(name for name in stored(self._pairs.column_names) if name != "caption_index")
        columns = ((name, in_one_piece(self._pairs[name])) for name in names)
        return digests(columns, [0, len(self._keys)], f"{VERSION} {settings}")[0]

    def rows(self) -> list[dict[str, Any]]:
        """One row an image: ``captions`` and ``similarity``, the most similar first, then other columns.

        Where the pairs of an image differ in another column, as in a measure of their captions, it is the first
        value that is not missing.
        """
        joined = ("key", "caption", "caption_index", "clip_similarity")
        names = sorted(name for name in stored(self._pairs.column_names) if name not in joined)
        columns = {name: _values(self._pairs[name]) for name in names}
        captions = self._pairs["caption"].to_pylist()
        similarities = [_rounded(value) for value in _values(self._pairs["clip_similarity"])]
        rows = []
        for first, end in self._images:
            row = {"key": self._keys[first]}
            row |= dict(zip(_JOINED, (captions[first:end], similarities[first:end]), strict=True))
            for name, values in columns.items():
                row[name] = next((v for v in values[first:end] if v is not None), None)
            rows.append(row)
        return rows

    def locations(self, column: str = LOCATION) -> dict[str, str]:
        """Where the source finds each image, or what a ``location_column`` is of; by key."""
        values = self._pairs[column].to_pylist()
        return {self._keys[first]: values[first] for first, _ in self._images}

    def companion_locations(self) -> dict[str, dict[str, str]]:
        """By kind, those that the ledger knows."""
        names = {kind: location_column(kind) for kind in KINDS}
        present = self._pairs.column_names
        return {kind: self.locations(name) for kind, name in names.items() if name in present}


def in_one_piece(column: pa.ChunkedArray) -> pa.Array:
    """A column in one piece."""
    import pyarrow as pa

    found = column.combine_chunks()
    return pa.concat_arrays(found.chunks) if isinstance(found, pa.ChunkedArray) else found


def _values(column: pa.ChunkedArray) -> list[Any]:
    """Python's values, None for missing ones, as which NaN counts too."""
    return [None if value != value else value for value in column.to_pylist()]


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)
