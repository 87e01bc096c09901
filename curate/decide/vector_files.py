"""Embeddings in one flat file, in an order of their own, in which tasks of other processes search."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from curate.annotate.embeddings import Embeddings
from curate.decide import edges
from curate.run import arrays
from curate.run.database import blocks
from curate.run.files import naming, sync

if TYPE_CHECKING:
    import duckdb


@dataclass(frozen=True, slots=True)
class VectorFiles:
    """N vectors of D dimensions, of unit length or zero.

    Attributes:
        folder: of the files: 4 D + 8 bytes a vector.
        count: N.
        dimensions: D; 0 where there is no embedding at all.
    """

    folder: Path
    count: int
    dimensions: int

    @property
    def vectors(self) -> np.ndarray:
        """(N, D) float32."""
        return arrays.mapped(self.folder, "vectors", np.float32, (self.count, self.dimensions))

    @property
    def numbers(self) -> np.ndarray:
        """(N,) int64, what each vector is called by."""
        return arrays.mapped(self.folder, "numbers", np.int64, (self.count,))


def write_vectors(
    connection: duckdb.DuckDBPyConnection, wanted: str, embedded: Embeddings, folder: Path
) -> VectorFiles:
    """Write the embeddings of images; those without one have zeros.

    It leaves a table ``copies_place(place BIGINT, image BIGINT)`` of those that have one.

    Args:
        connection: where ``wanted`` can be asked for.
        wanted: a query with the columns ``image`` and ``number``, what its vector is called by; they are
            written in ascending order of these.
        embedded: all embeddings.
        folder: does not exist yet.

    Raises:
        OSError: the disk is full.
    """
    folder.mkdir(parents=True)
    ordered, places = (
        f"SELECT image, number FROM ({wanted}) ORDER BY number",
        folder / "places.parquet",
    )
    with arrays.writing(folder, "numbers") as (stream,):
        count = edges.write(places, _places(connection, ordered, stream))
    _create_places(connection, places)
    dimensions = 0

    def filled() -> edges.Pairs:
        """The places and images that have an embedding, which is written on the way."""
        nonlocal dimensions
        vectors = np.zeros((count, 0), np.float32)
        for rows, block in embedded.image_blocks() if count else ():
            # The table is sorted by image, so that this reads little of it.
            found = connection.sql(
                "SELECT image, place FROM copies_place WHERE image BETWEEN ? AND ?",
                params=[int(rows[0]), int(rows[-1])],
            ).fetchnumpy()
            if not vectors.shape[1]:
                dimensions = block.shape[1]
                vectors = _reserved(folder / "vectors.bin", (count, dimensions))
            at = np.searchsorted(rows, found["image"])
            there = rows[at] == found["image"]
            vectors[found["place"][there]] = block[at[there]]
            yield found["place"][there], found["image"][there]

    edges.write(folder / "there.parquet", filled())
    if (
        dimensions
    ):  # for workers on other machines, whose file system may not see what is only in memory here
        sync(folder / "vectors.bin")
    _create_places(connection, folder / "there.parquet")
    return VectorFiles(folder, count, dimensions)


def _create_places(connection: duckdb.DuckDBPyConnection, path: Path) -> None:
    connection.sql(
        "CREATE OR REPLACE TABLE copies_place AS SELECT one AS place, other AS image "
        f"FROM ({edges.of_files([path])}) ORDER BY image"
    )


def _places(
    connection: duckdb.DuckDBPyConnection, ordered: str, numbers: arrays.Writer
) -> edges.Pairs:
    """The place of each image, whose numbers are written to a file on the way."""
    start = 0
    for block in blocks(connection, ordered):
        numbers.write(block["number"].to_numpy())
        yield np.arange(start, start + len(block)), block["image"].to_numpy()
        start += len(block)


def _reserved(path: Path, shape: tuple[int, int]) -> np.ndarray:
    """Zeros in float32 in a file whose room on the disk is taken: of a sparse one a full disk would show as SIGBUS."""
    size = np.dtype(np.float32).itemsize * shape[0] * shape[1]
    with naming(path), path.open("wb") as stream:
        if reserve := getattr(os, "posix_fallocate", None):  # which macOS lacks
            reserve(stream.fileno(), 0, size)
        else:
            os.truncate(stream.fileno(), size)
    return np.memmap(path, np.float32, "r+", shape=shape)
