"""CLIP's embeddings, read from the parts by row: a part at a time, never all at once."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa

from curate.annotate.config import NONE
from curate.annotate.parts import footer_head, head_of, read_part
from curate.annotate.rows import by_part, starts, starts_of
from curate.annotate.stored_embeddings import COLUMNS, Stored, stored_in
from curate.annotate.stored_embeddings import vectors as vectors_of

__all__ = ["COLUMNS", "Embeddings"]


class Embeddings:
    """The embeddings of a sequence of ``parts``; rows are numbered through all of them.

    Each method raises ``UserError`` where a part is damaged.

    Attributes:
        starts: the number of each part's first row, and of all rows: (P + 1,).
    """

    def __init__(
        self,
        parts: Sequence[Path],
        wanted: Stored | None = None,
        counts: Sequence[int] | None = None,
    ) -> None:
        """The embeddings of ``parts``, of which no more than the footers is read here.

        Args:
            parts: of the annotations, in input order.
            wanted: of the run's ``AnnotationSpec``; what parts store beyond it decides nothing. None: all.
            counts: of the rows of each part, where they are known.
        """
        self.parts = list(parts)
        self.starts = starts(self.parts) if counts is None else starts_of(counts)
        self._wanted = wanted or Stored()

    @cached_property
    def _kept(self) -> list[Stored]:
        """What the run and each part keep that leaves anything out."""
        each = [self._wanted, *(stored_in(footer_head(path)) for path in self.parts)]
        return [kept for kept in each if not kept.is_everything]

    @property
    def has_all_images(self) -> bool:
        """Whether each picture that was scored has its embedding, by the run's settings, too."""
        kinds = {self._wanted.kind, *(kept.kind for kept in self._kept)}
        return NONE not in kinds

    @property
    def drawn_bits(self) -> int:
        """How many zeros the hash of a pair begins with whose embeddings are sure to be there."""
        return max((kept.drawn_bits for kept in self._kept), default=0)

    @property
    def folder(self) -> Path:
        """That of the parts, whose disk has room for what is computed from them.

        Raises:
            ValueError: there are no parts.
        """
        if not self.parts:
            raise ValueError("no parts, no folder")
        return self.parts[0].parent

    def texts(self, rows: np.ndarray) -> np.ndarray:
        """The captions' embeddings at ``rows`` (N,): (N, D) float32 of unit length."""
        return self._take("text_embedding", rows)

    def images(self, rows: np.ndarray) -> np.ndarray:
        """The images' embeddings at ``rows`` (N,), each the first row of its image: (N, D) float32."""
        return self._take("image_embedding", rows)

    def images_or_zero(self, rows: np.ndarray) -> np.ndarray:
        """As ``images``, zero where there is none: (N, D) float32, (N, 1) where no image has one."""
        with self.images_on_disk(rows) as vectors:
            return np.array(vectors)

    @contextmanager
    def images_on_disk(self, rows: np.ndarray) -> Iterator[np.ndarray]:
        """As ``images``, zero where there is none, in a temporary file; memory holds what is being read.

        The file has no name and lies in the folder of the parts, whose disk has room for such sizes.

        Raises:
            OSError: the disk is full.
        """
        if not len(rows):
            yield np.zeros((0, 1), np.float32)
            return
        vectors = np.zeros((len(rows), 1), np.float32)
        for number, places, within in by_part(self.starts, rows):
            part = read_part(self.parts[number], ["image_embedding"])
            found = part["image_embedding"].take(pa.array(within))
            valid = found.is_valid().to_numpy()
            if not valid.any():
                continue
            block = vectors_of(found.drop_null(), head_of(part.schema))
            if vectors.shape[1] != block.shape[1]:
                vectors = _on_disk(self.folder, (len(rows), block.shape[1]))
            vectors[places[valid]] = block
        yield vectors

    def image_blocks(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """For each part the rows (n,) that hold an image's embedding, and these (n, D)."""
        for path, start in zip(self.parts, self.starts[:-1], strict=True):
            part = read_part(path, ["image_embedding"])
            column = part["image_embedding"]
            valid = column.is_valid().to_numpy()
            if valid.any():
                found = vectors_of(column.drop_null(), head_of(part.schema))
                yield start + np.flatnonzero(valid), found

    def _take(self, column: str, rows: np.ndarray) -> np.ndarray:
        """Each part that holds some of ``rows`` is read once, and of it one column."""
        found, order = [], []
        for number, places, within in by_part(self.starts, rows):
            table = read_part(self.parts[number], [column])
            found.append(vectors_of(table[column].take(pa.array(within)), head_of(table.schema)))
            order.append(places)
        if not found:
            return np.zeros((0, 0), np.float32)
        stacked = np.concatenate(found)
        result = np.empty_like(stacked)
        result[np.concatenate(order)] = stacked
        return result


def _extend(file: int, start: int, size: int) -> None:
    os.truncate(file, start + size)


def _on_disk(folder: Path, shape: tuple[int, int]) -> np.ndarray:
    """Zeros in float32, in a file without a name that is deleted with the array."""
    with tempfile.TemporaryFile(dir=folder) as file:
        size = np.dtype(np.float32).itemsize * shape[0] * shape[1]
        # With a sparse file, a full disk would show as SIGBUS when a page is written.
        reserve = getattr(os, "posix_fallocate", _extend)  # which macOS lacks
        try:
            reserve(file.fileno(), 0, size)
        except OSError as error:
            error.filename = str(folder)
            raise
        return np.memmap(file, np.float32, "r+", shape=shape)
