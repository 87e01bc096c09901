"""CLIP's embeddings, read from the parts by row: a part at a time, never all at once."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from curate.annotate.parts import read_part, reading_part

COLUMNS = ("image_embedding", "text_embedding")


class Embeddings:
    """The embeddings of a sequence of parts; rows are numbered through all of them.

    Each method raises ``UserError`` where a part is damaged.
    """

    def __init__(self, parts: Sequence[Path]) -> None:
        self._parts = list(parts)
        rows = [_rows(path) for path in self._parts]
        self._starts = np.concatenate([[0], np.cumsum(rows, dtype=np.int64)])

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
        place = np.full(self._starts[-1], -1)
        place[rows] = np.arange(len(rows))
        vectors = np.zeros((len(rows), 1), np.float32)
        for found, block in self.image_blocks():
            wanted = place[found] >= 0
            if vectors.shape[1] != block.shape[1]:
                vectors = _on_disk(self._parts[0].parent, (len(rows), block.shape[1]))
            vectors[place[found][wanted]] = block[wanted]
        yield vectors

    def image_blocks(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """For each part the rows (n,) that hold an image's embedding, and these (n, D)."""
        for path, start in zip(self._parts, self._starts[:-1], strict=True):
            column = read_part(path, ["image_embedding"])["image_embedding"]
            valid = column.is_valid().to_numpy()
            if valid.any():
                yield start + np.flatnonzero(valid), _matrix(column.drop_null())

    def _take(self, column: str, rows: np.ndarray) -> np.ndarray:
        """Each part that holds some of ``rows`` is read once, and of it one column."""
        order = np.argsort(rows, kind="stable")
        bounds = np.searchsorted(rows[order], self._starts)
        found: list[np.ndarray] = []
        for number in np.flatnonzero(np.diff(bounds)):
            within = rows[order[bounds[number] : bounds[number + 1]]] - self._starts[number]
            table = read_part(self._parts[number], [column])
            found.append(_matrix(table[column].take(pa.array(within))))
        if not found:
            return np.zeros((0, 0), np.float32)
        stacked = np.concatenate(found)
        result = np.empty_like(stacked)
        result[order] = stacked
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


def _rows(path: Path) -> int:
    with reading_part(path):
        return pq.read_metadata(path).num_rows


def _matrix(column: pa.ChunkedArray) -> np.ndarray:
    """N byte strings of D float32 each => (N, D)."""
    return np.frombuffer(b"".join(column.to_pylist()), np.float32).reshape(len(column), -1)
