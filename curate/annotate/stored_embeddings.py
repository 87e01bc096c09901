"""Which embeddings a part stores, and how: in half precision, of all pairs or of those that may be drawn.

The footer of a part says it (``Stored.head``). Parts of earlier releases say nothing: they store all in single
precision, and ``upgraded`` reads them as if they had been measured today.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from curate.annotate.config import BOTH, KINDS, NONE
from curate.annotate.pair_numbers import may_be_drawn, pair_numbers
from curate.clip.similarity import STORED, cosines, rounded, unit

COLUMNS = ("image_embedding", "text_embedding")
HEAD = "embeddings"  # in the footer's head of a part

_NEEDED = [*COLUMNS, "caption_index", "clip_similarity"]


@dataclass(frozen=True, slots=True)
class Stored:
    """Which embeddings are stored.

    Attributes:
        kind: of ``KINDS``: those of images and texts, of images alone, or neither.
        drawn_bits: what ``kind`` leaves out is stored all the same of pairs whose hash has so many zeros, see
            ``pair_numbers``; 0 stores all.
    """

    kind: str = BOTH
    drawn_bits: int = 0

    def head(self) -> dict[str, Any]:
        """What a part's footer says."""
        return {"type": np.dtype(STORED).name, **asdict(self)}

    @property
    def is_everything(self) -> bool:
        """Whether nothing is left out."""
        return self.kind == BOTH or self.drawn_bits == 0

    def holds(self, wanted: Stored) -> bool:
        """Whether a part that stores this has all that ``wanted`` asks for."""
        if self.is_everything:
            return True
        return (
            KINDS.index(self.kind) <= KINDS.index(wanted.kind)
            and self.drawn_bits <= wanted.drawn_bits
        )

    def keeps(self, keys: list[str], indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Masks (N,) of the rows whose image's, and whose text's embedding is stored.

        Args:
            keys: of each row; those of an image stand together.
            indices: (N,) of each row's caption.
        """
        drawn = may_be_drawn(pair_numbers(keys, indices), self.drawn_bits)
        first = np.arange(len(keys)) - indices
        of_image = np.zeros(len(keys), bool)
        of_image[first[drawn]] = True
        return of_image[first] | (self.kind != NONE), drawn | (self.kind == BOTH)


def stored_in(head: Mapping[str, Any]) -> Stored:
    """What a part with this head stores."""
    said = head.get(HEAD)
    return Stored(said["kind"], said["drawn_bits"]) if said else Stored()


def vectors(column: pa.ChunkedArray, head: Mapping[str, Any]) -> np.ndarray:
    """N embeddings of a part with this head => (N, D) float32 of unit length."""
    said = head.get(HEAD)
    kind = np.dtype(said["type"] if said else np.float32)
    found = np.frombuffer(b"".join(column.to_pylist()), kind).reshape(len(column), -1)
    return unit(found) if said else found


def is_old(head: Mapping[str, Any]) -> bool:
    """Whether a part was measured by a release that stored embeddings in single precision."""
    return "format" in head and HEAD not in head


def read_for(columns: list[str]) -> list[str]:
    """The columns of an old part that are read for ``columns``."""
    return (
        list(dict.fromkeys([*columns, *_NEEDED]))
        if {*columns} & {*_NEEDED[:2], _NEEDED[3]}
        else columns
    )


def upgraded(table: pa.Table) -> pa.Table:
    """An old part's rows with embeddings in half precision, and the similarities of these."""
    missing = [name for name in _NEEDED if name not in table.column_names]
    if missing:
        return table
    images, texts = (_halved(table[name]) for name in COLUMNS)
    first = np.arange(len(table)) - table["caption_index"].to_numpy()
    similarity = table["clip_similarity"].to_pandas().to_numpy(np.float32).copy()
    rows = [
        row
        for row in np.flatnonzero(~np.isnan(similarity)).tolist()
        if images[first[row]] is not None and texts[row] is not None
    ]
    if rows:
        pairs = (
            b"".join(images[first[row]] or b"" for row in rows),
            b"".join(texts[row] or b"" for row in rows),
        )
        of_images, of_texts = (np.frombuffer(of, STORED).reshape(len(rows), -1) for of in pairs)
        similarity[rows] = cosines(of_images, of_texts)
    for name, values in zip(COLUMNS, (images, texts), strict=True):
        table = table.set_column(
            table.column_names.index(name), name, pa.array(values, pa.binary())
        )
    values = pa.array(similarity, pa.float32(), mask=np.isnan(similarity))
    return table.set_column(table.column_names.index("clip_similarity"), "clip_similarity", values)


def _halved(column: pa.ChunkedArray) -> list[bytes | None]:
    return [
        None if value is None else rounded(np.frombuffer(value, np.float32)).tobytes()
        for value in column.to_pylist()
    ]
