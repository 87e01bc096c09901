"""Semantic copies: near embeddings, exactly within clusters; tasks assign them, then compare each cluster.

Up to ``ALONE`` pictures are one cluster, in which all are compared with all. More are divided by spherical
k-means (Dhillon and Modha 2001, "Concept Decompositions for Large Sparse Text Data Using Clustering") into
about as many clusters as the root of their number, each picture into its two nearest, as in SemDeDup (Abbas et
al. 2023). Two pictures that share neither are not compared: of pairs with a cosine of 0.96, one in a thousand. Where
copies are dropped, a picture is paired with its first ``NEIGHBOURS`` near ones in each cluster alone: ten thousand
pictures of one product have fifty million pairs. A copy stays by mistake only if none of so many preferred ones is
kept, and a later one is.

Clusters are found on vectors rounded to 127ths, whose products are integers that single precision holds
exactly: the sum of their squares is below 2**15 for 512 dimensions and far below 2**24 for any CLIP. So neither
the device nor the number of threads decides. Whether two pictures are near is decided on the vectors themselves.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from math import isqrt
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from curate.decide import edges
from curate.decide.kmeans import LARGEST_SAMPLE, SAMPLE, assigned, rounded, trained
from curate.decide.neighbours import Pairs, Rows, components, cosine_pairs, stays_by_cosine
from curate.decide.vector_files import VectorFiles
from curate.run import arrays
from curate.run.database import blocks, parquet_files
from curate.run.engine.inprocess import InProcess
from curate.run.engine.tasks import Engine, Progress, Worker, WorkerSpec, values
from curate.run.files import atomic_write

if TYPE_CHECKING:
    import duckdb

ALONE = 1 << 15  # pictures that are one cluster
"""20,000 of 512 dimensions take 3 s."""

NEIGHBOURS = 64  # near ones of a picture in a cluster, the preferred first, that may be kept for it

_ASSIGNED = 1 << 17  # vectors that a task assigns
_CLUSTERS = 16  # that a task compares
# Bytes of a cluster's vectors that are copied to memory; those of a larger one are read again for each block.
_HELD = 1 << 28


def clusters_of(count: int) -> int:
    """How many clusters ``count`` vectors are divided into."""
    return 1 if count <= ALONE else isqrt(count)


def search(
    connection: duckdb.DuckDBPyConnection,
    files: VectorFiles,
    cosine: float,
    engine: Engine,
    joined: bool,
) -> str:
    """Pairs of vectors with at least this cosine, as a query with the columns ``one`` and ``other``, their numbers.

    Args:
        connection: with the view ``images`` and the table ``copies_place`` of ``write_vectors``.
        files: what to search.
        cosine: above 0, up to 1.
        engine: carries out the tasks.
        joined: whether pairs only have to join each component, so that few of a crowd will do. Otherwise
            they are all pairs, each once, but for those beyond ``NEIGHBOURS``, or what has the same outcome in
            ``keeping.write_kept``. Lower numbers are preferred.
    """
    if not files.dimensions:
        return edges.of_files([])
    clusters = clusters_of(files.count)
    if clusters == 1:
        spec = WorkerSpec(
            "curate.decide.semantic:alone", {"files": files, "cosine": cosine, "joined": joined}
        )
        names = values(InProcess().map(spec, [0]), "searching semantic copies")
        return edges.of_files([files.folder / name for name in names])
    sample = _sample(connection, files, clusters)
    if not len(sample):
        return edges.of_files([])
    with atomic_write(files.folder / "centroids.npy") as stream:
        np.save(stream, trained(sample, clusters))
    spec = WorkerSpec("curate.decide.semantic:assigning", {"files": files}, uses_gpu=True)
    starts = list(range(0, files.count, _ASSIGNED))
    parts = values(engine.map(spec, starts), "assigning pictures to clusters")
    _write_members(connection, files, [files.folder / name for name in sorted(parts)])
    spec = WorkerSpec(
        "curate.decide.semantic:comparing",
        {"files": files, "cosine": cosine, "joined": joined},
        uses_gpu=True,
    )
    firsts = list(range(0, clusters, _CLUSTERS))
    names = values(engine.map(spec, firsts), "searching semantic copies")
    return edges.of_files([files.folder / name for name in sorted(names)])


def _sample(connection: duckdb.DuckDBPyConnection, files: VectorFiles, clusters: int) -> np.ndarray:
    """Vectors to train on (S, D) int8, drawn by the hash of their keys, in the order of it.

    If fewer have an embedding than there are clusters, some are drawn several times; none if none has one.
    """

    size = max(clusters, min(SAMPLE * clusters, LARGEST_SAMPLE))
    drawn = connection.sql(
        "SELECT place FROM copies_place JOIN images USING (image) "
        f"ORDER BY images.number, copies_place.place LIMIT {size}"
    ).fetchnumpy()["place"]
    found = np.empty((len(drawn), files.dimensions), np.int8)
    vectors = files.vectors
    for start in range(0, len(drawn), 1 << 14):
        at = slice(start, start + (1 << 14))
        found[at] = rounded(vectors[drawn[at]])
    return (
        found if not len(found) else np.resize(found, (max(len(found), clusters), files.dimensions))
    )


@contextmanager
def alone(files: VectorFiles, cosine: float, joined: bool) -> Iterator[Worker]:
    """A worker for one task, all vectors: each pair it writes has the one that stands for the other, or is kept."""

    def work(task: int, progress: Progress) -> str:
        if joined:
            stands = components(files.count, cosine_pairs(files.vectors, cosine))
        else:
            stands = stays_by_cosine(files.vectors, cosine)
        others = np.flatnonzero(stands != np.arange(files.count))
        pairs = files.numbers[stands[others]], files.numbers[others]
        path = files.folder / "semantic.parquet"
        edges.write(path, [pairs])
        return path.name

    yield work


@contextmanager
def assigning(files: VectorFiles) -> Iterator[Worker]:
    """A worker for ranges of vectors, by their first: it writes the two clusters of each and gives the file's name."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    centroids = np.load(files.folder / "centroids.npy")

    def work(first: int, progress: Progress) -> str:
        vectors = files.vectors[first : first + _ASSIGNED]
        there = np.flatnonzero(vectors.any(axis=1))
        nearest = assigned(rounded(vectors[there]), centroids, 2).astype(np.int32)
        both = np.concatenate([nearest, nearest[:, ::-1]])
        table = {"cluster": both[:, 0], "twin": both[:, 1], "place": np.tile(there + first, 2)}
        path = files.folder / f"assigned-{first:015d}.parquet"
        with atomic_write(path) as stream:
            pq.write_table(pa.table(table), stream)
        return path.name

    yield work


def _write_members(
    connection: duckdb.DuckDBPyConnection, files: VectorFiles, parts: list[Path]
) -> None:
    """Write the members of all clusters, one cluster after another, and where each begins."""
    clusters = clusters_of(files.count)
    assignments = f"FROM {parquet_files(parts)}"
    sizes = np.zeros(clusters + 1, np.int64)
    for cluster, size in connection.sql(
        f"SELECT cluster, count(*) {assignments} GROUP BY cluster"
    ).fetchall():
        sizes[cluster + 1] = size
    with atomic_write(files.folder / "begins.npy") as stream:
        np.save(stream, np.cumsum(sizes))
    with arrays.writing(files.folder, "members", "twins") as (members, twins):
        ordered = f"SELECT place, twin {assignments} ORDER BY cluster, place"
        for block in blocks(connection, ordered):
            members.write(block["place"].to_numpy())
            twins.write(block["twin"].to_numpy())


@contextmanager
def comparing(files: VectorFiles, cosine: float, joined: bool) -> Iterator[Worker]:
    """A worker for runs of clusters, by their first: it writes the near pairs and gives the file's name."""
    begins = np.load(files.folder / "begins.npy")
    total = (int(begins[-1]),)
    members = arrays.mapped(files.folder, "members", np.int64, total)
    twins = arrays.mapped(files.folder, "twins", np.int32, total)

    def work(first: int, progress: Progress) -> str:
        path = files.folder / f"semantic-{first:09d}.parquet"
        edges.write(path, of_clusters(first))
        return path.name

    def of_clusters(first: int) -> Pairs:
        for cluster in range(first, min(first + _CLUSTERS, len(begins) - 1)):
            own = slice(begins[cluster], begins[cluster + 1])
            yield from of_cluster(cluster, np.asarray(members[own]), np.asarray(twins[own]))

    def of_cluster(cluster: int, places: np.ndarray, twin: np.ndarray) -> Pairs:
        vectors = Taken(files.vectors, places)
        held: Rows = vectors[:] if 4 * len(places) * files.dimensions <= _HELD else vectors
        pairs, numbers = cosine_pairs(held, cosine), files.numbers[places]
        if joined:
            stands = components(len(places), pairs)
            others = np.flatnonzero(stands != np.arange(len(places)))
            yield numbers[stands[others]], numbers[others]
            return
        for one, other in _first_of_each(pairs, len(places)):
            # A pair that has both clusters in common is the earlier one's.
            own = (twin[one] != twin[other]) | (twin[one] > cluster)
            yield numbers[one[own]], numbers[other[own]]

    yield work


def _first_of_each(pairs: Pairs, count: int) -> Pairs:
    """Of ordered pairs, see ``cosine_pairs``, the first ``NEIGHBOURS`` of each ``other`` of 0 ... count - 1."""
    had = np.zeros(count, np.int64)
    for one, other in pairs:
        order = np.lexsort((one, other))
        one, other = one[order], other[order]
        begins = np.append(True, other[1:] != other[:-1])[: len(other)]
        first = np.flatnonzero(begins)
        nth = had[other] + np.arange(len(other)) - first[np.cumsum(begins) - 1]
        had[other[first]] += np.diff(np.append(first, len(other)))
        yield one[nth < NEIGHBOURS], other[nth < NEIGHBOURS]


class Taken:
    """Some rows of an array, which are copied when they are asked for."""

    def __init__(self, rows: np.ndarray, places: np.ndarray) -> None:
        self._rows, self._places = rows, places

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, at: slice | np.ndarray) -> np.ndarray:
        return self._rows[self._places[at]]
