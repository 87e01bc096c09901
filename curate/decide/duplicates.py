"""Copies of a picture: which belong together, and which of them is kept."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from curate.annotate.embeddings import Embeddings
from curate.decide import edges, near, semantic
from curate.decide.components import create_components
from curate.decide.config import SplitConfig
from curate.decide.evidence import COPIES, GROUPS
from curate.decide.group_names import create_names
from curate.decide.keeping import write_kept
from curate.decide.look_files import Batch, LookFiles
from curate.decide.looks import thumbnails
from curate.decide.vector_files import write_vectors
from curate.filters.duplicates import DuplicatesConfig
from curate.measures import thumbnail
from curate.run.database import named
from curate.run.engine.tasks import Engine

if TYPE_CHECKING:
    import duckdb

_BLOCK = 1 << 16  # looks, with their thumbnails, that are in memory at a time


def copy_groups(
    connection: duckdb.DuckDBPyConnection,
    split: SplitConfig,
    filters: DuplicatesConfig,
    embedded: Embeddings,
    folder: Path,
    engine: Engine,
) -> near.Crowds:
    """Create ``copy_groups(image BIGINT, name UBIGINT)``: the group of copies of each decoded image.

    The split divides no group, and joins them with their ``siblings``. Two pictures share a group if
    their pixels are equal, their perceptual hashes near (also with one of them mirrored) and their
    thumbnails alike by ``evidence.GROUPS``, their embeddings near (if the filters say how near), or if
    the source says so in a column ``group``. Chains are followed to their end: a chain that is cut would
    have its ends on two sides. The name is the hash of the smallest ``group`` among its members, so that
    another data set with the same photo puts it on the same side; without one it is the smallest of
    their first 16 digits of ``pixels_sha256``, either as a number. So adding data moves only groups that
    it joins.

    Args:
        connection: with the view ``images``, see ``tables``.
        split: how near hashes are on different sides.
        filters: how near dropped copies are; groups reach at least as far.
        embedded: embeddings of the same rows; read where ``filters.cosine`` is given.
        folder: for working files, which are deleted at the end.
        engine: searches for near copies.

    Returns:
        What was not compared, as too many hashes had equal bands.
    """
    with _working(connection, folder) as work:
        connection.sql(
            "CREATE TABLE copies_class AS SELECT image, "
            "first_value(image) OVER (PARTITION BY pixels ORDER BY number, image) AS class "
            "FROM images WHERE pixels IS NOT NULL"
        )
        links, crowds = [_equal("nullif(given_group, '')")], near.Crowds()
        given = (split.hamming_distance, filters.hamming_distance)
        if distances := [distance for distance in given if distance is not None]:
            looks = LookFiles.write(work / "looks", _batches(connection, _BOTH_WAYS))
            found = near.search(looks, max(distances), GROUPS, engine)
            links += [_equal("look", "look_mirrored"), found.led, found.near]
            crowds = found.crowds
        if filters.cosine is not None:
            # Of equal pixels, whose embeddings are equal, one picture; not the first, or order would matter.
            firsts = "SELECT image, image AS number FROM copies_class WHERE image = class"
            vectors = write_vectors(connection, firsts, embedded, work / "vectors")
            links.append(semantic.search(connection, vectors, filters.cosine, engine, joined=True))
        union = " UNION ALL ".join(f"({query})" for query in links)
        create_components(connection, "copies_component", union, work)
        connection.sql(
            "CREATE VIEW copies_labelled AS SELECT image, coalesce(label, class) AS label "
            "FROM copies_class LEFT JOIN copies_component ON node = class"
        )
        create_names(connection, "copy_groups", "copies_labelled", work)
    return crowds


_BOTH_WAYS = """
    SELECT class AS number, shown % 2 = 1 AS mirrored,
        CASE WHEN shown % 2 = 1 THEN phash_mirrored ELSE phash END AS hash, thumbnail
    FROM (
        SELECT look AS name, min(shown) AS shown FROM (
            SELECT look, 2 * image AS shown FROM images WHERE pixels IS NOT NULL
            UNION ALL SELECT look_mirrored, 2 * image + 1 FROM images WHERE pixels IS NOT NULL
        ) GROUP BY look
    ) JOIN images ON image = shown // 2 JOIN copies_class USING (image)
    ORDER BY name
"""
"""Each different look of the pictures, as they are or mirrored, with the class of one that has it."""


def _equal(*columns: str) -> str:
    """A query for pairs of classes that have a value in common, in any of ``columns``; null is none."""
    values = " UNION ".join(
        f"SELECT class, {column} AS value FROM images JOIN copies_class USING (image)"
        for column in columns
    )
    return (
        "SELECT min(class) OVER (PARTITION BY value) AS one, class AS other "
        f"FROM ({values}) WHERE value IS NOT NULL QUALIFY one <> other"
    )


def _batches(connection: duckdb.DuckDBPyConnection, query: str) -> Iterator[Batch]:
    """The looks of a query with the columns ``number, hash, thumbnail, mirrored``."""
    for batch in connection.sql(query).to_arrow_reader(_BLOCK):
        seen = thumbnails(batch.column("thumbnail"))
        turned = batch.column("mirrored").to_numpy(zero_copy_only=False)
        seen = np.where(turned[:, None], thumbnail.mirrored(seen), seen)
        yield batch.column("number").to_numpy(), batch.column("hash").to_numpy(), seen


def keepers(
    connection: duckdb.DuckDBPyConnection,
    config: DuplicatesConfig,
    embedded: Embeddings,
    folder: Path,
    engine: Engine,
) -> near.Crowds:
    """Create ``keepers(image BIGINT, keeper BIGINT)``: for each picture that goes the one that is kept instead.

    Of several copies the one with the most similar caption is kept, then the larger, then the first by
    key. Exact, near and semantic copies are searched one after another, each among what the previous
    search kept; mirror images are not copies here, as captions may speak of left and right. A search
    drops a picture only if a picture that it keeps is near it: of a chain a-b-c whose ends are not
    near, a and c are kept. If a later search drops that picture as well, the one named for both is
    near the second and not necessarily near the first. So it is with a picture of a crowd whose leader
    goes, see ``near``. A near copy has a near hash and a thumbnail that is alike by ``evidence.COPIES``.

    Args:
        connection: with the view ``images``, see ``tables``, and ``left_images(image BIGINT, similarity
            FLOAT, area BIGINT, key VARCHAR)``, the decoded pictures that no rule dropped.
        config: which pictures count as the same.
        embedded: embeddings of all annotations; read where ``config.cosine`` is given.
        folder: for working files, which are deleted at the end.
        engine: searches for near copies.

    Returns:
        What was not compared, as too many hashes had equal bands.
    """
    crowds = near.Crowds()
    with _working(connection, folder) as work:
        for table in ("copies_exact", "copies_near", "copies_semantic"):
            connection.sql(f"CREATE TABLE {table} (image BIGINT, keeper BIGINT)")
        if config.exact:
            connection.sql(_EXACT)
        if config.hamming_distance is not None or config.cosine is not None:
            _rank(connection, work)
        if config.hamming_distance is not None:
            crowds = _drop_near(connection, config.hamming_distance, work, engine)
        if config.cosine is not None:
            _drop_semantic(connection, config.cosine, embedded, work, engine)
        connection.sql(_TO_THE_END)
    return crowds


_PREFERENCE = (
    "CASE WHEN isnan(similarity) THEN NULL ELSE similarity END DESC NULLS LAST, area DESC, key"
)

_EXACT = f"""
    INSERT INTO copies_exact
    WITH decoded AS (SELECT image, pixels FROM left_images JOIN images USING (image)),
    several AS (SELECT pixels FROM decoded GROUP BY pixels HAVING count(*) > 1)
    SELECT image, first_value(image) OVER (PARTITION BY pixels ORDER BY {_PREFERENCE}) AS keeper
    FROM left_images JOIN decoded USING (image) SEMI JOIN several USING (pixels)
    QUALIFY image <> keeper
"""

_TO_THE_END = """
    CREATE TABLE keepers AS
    WITH gone AS (FROM copies_exact UNION ALL FROM copies_near UNION ALL FROM copies_semantic),
    after_near AS (
        SELECT gone.image, coalesce(near.keeper, gone.keeper) AS keeper
        FROM gone LEFT JOIN copies_near AS near ON near.image = gone.keeper
    )
    SELECT after_near.image, coalesce(semantic.keeper, after_near.keeper) AS keeper
    FROM after_near LEFT JOIN copies_semantic AS semantic ON semantic.image = after_near.keeper
"""
"""What one search keeps, a later one may drop."""


def _rank(connection: duckdb.DuckDBPyConnection, work: Path) -> None:
    """Create ``copies_rank(rank, image)``: 0 is the preferred one of what equal pixels left."""
    ordered = (
        f"SELECT image FROM left_images ANTI JOIN copies_exact USING (image) ORDER BY {_PREFERENCE}"
    )
    path = work / "rank.parquet"
    edges.write(path, edges.numbered(connection, ordered, "image"))
    connection.sql(
        f"CREATE TABLE copies_rank AS SELECT one AS rank, other AS image FROM ({edges.of_files([path])})"
    )


def _drop_near(
    connection: duckdb.DuckDBPyConnection, distance: int, work: Path, engine: Engine
) -> near.Crowds:
    """Fill ``copies_near``. Equal looks go first, then what a crowd's leader leads, then near ones."""
    connection.sql(
        "CREATE TABLE copies_first AS "
        "SELECT image, rank, min(rank) OVER (PARTITION BY look) AS first "
        "FROM copies_rank JOIN images USING (image)"
    )
    different = (
        "SELECT rank AS number, phash AS hash, thumbnail, false AS mirrored "
        "FROM copies_first JOIN images USING (image) WHERE rank = first ORDER BY rank"
    )
    looks = LookFiles.write(work / "looks", _batches(connection, different))
    found = near.search(looks, distance, COPIES, engine)
    path = work / "near.parquet"
    write_kept(connection, found.near, _count(connection, "copies_rank"), path)
    connection.sql(
        "INSERT INTO copies_near SELECT going.image, copies_rank.image FROM ("
        "SELECT image, copies_first.rank, coalesce(near.one, led.one, first) AS kept "
        f"FROM copies_first LEFT JOIN ({found.led}) AS led ON led.other = first "
        f"LEFT JOIN ({edges.of_files([path])}) AS near ON near.other = coalesce(led.one, first)"
        ") AS going JOIN copies_rank ON copies_rank.rank = kept WHERE going.rank <> kept"
    )
    return found.crowds


def _drop_semantic(
    connection: duckdb.DuckDBPyConnection,
    cosine: float,
    embedded: Embeddings,
    work: Path,
    engine: Engine,
) -> None:
    """Fill ``copies_semantic``."""
    left = "SELECT image, rank AS number FROM copies_rank ANTI JOIN copies_near USING (image)"
    vectors = write_vectors(connection, left, embedded, work / "vectors")
    found = semantic.search(connection, vectors, cosine, engine, joined=False)
    path = work / "semantic.parquet"
    write_kept(connection, found, _count(connection, "copies_rank"), path)
    connection.sql(
        "INSERT INTO copies_semantic SELECT going.image, kept.image "
        f"FROM ({edges.of_files([path])}) JOIN copies_rank AS going ON going.rank = other "
        "JOIN copies_rank AS kept ON kept.rank = one"
    )


def _count(connection: duckdb.DuckDBPyConnection, table: str) -> int:
    ((count,),) = connection.sql(f"SELECT count(*) FROM {table}").fetchall()
    return count


@contextmanager
def _working(connection: duckdb.DuckDBPyConnection, folder: Path) -> Iterator[Path]:
    """A folder for files, of which nothing is left, nor of the tables and views whose names begin with ``copies_``."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix="copies-") as work:
        yield Path(work)
        for kind in ("VIEW", "TABLE"):
            names = connection.sql(
                f"SELECT {kind}_name FROM duckdb_{kind}s() WHERE starts_with({kind}_name, 'copies_')"
            ).fetchall()
            for (name,) in names:
                connection.sql(f"DROP {kind} {named(name)}")
