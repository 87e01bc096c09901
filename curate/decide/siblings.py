"""Siblings: different pictures of one thing, by near captions and near CLIP embeddings; one side, one group.

A waving hand in another skin tone and a crop under another caption are no copies, so both are kept; but
whoever has trained on the one has seen much of the other. Neither sign is enough: of unlike pictures some
are nearer to each other than to their crops, and "a photo of a dog" is the caption of thousands.

Two pictures are siblings if

- their captions share a word, two words or all words that few groups have (at most ``caption_words.MOST`` and a
  tenth of all), and together ``NEAR_CAPTIONS`` of what the shorter one says, see ``caption_words``;
- the cosine of their embeddings is at least what only one in a hundred pairs of pictures with unlike captions
  reaches, so each CLIP and data set has its own level; and
- one is among the ``families.NEAREST`` of the other's by cosine.

Captions are looked up before pictures are compared, so the work grows with the pictures, not their square:
a million pictures need no product of all with all. Groups joined so may form chains; ``families`` loosens
those of more than ``LARGEST``. Neither the order nor the parts of the input decide; more data joins more, may
move the level, and may make a word common, so that siblings come apart. Words, keys and pairs lie on the disk.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from curate.annotate.embeddings import Embeddings
from curate.decide import draw, neighbours
from curate.decide.caption_words import CaptionWords, create_having, few_of
from curate.decide.families import LARGEST, Links
from curate.decide.group_names import create_names
from curate.decide.rare_words import Pictures
from curate.run.database import blocks, registered

if TYPE_CHECKING:
    import duckdb

__all__ = ["LARGEST", "NEAR_CAPTIONS", "Siblings", "find"]

NEAR_CAPTIONS = 0.75
"""Of the weight of the shorter caption's words. Below it, OpenMoji pairs "thumbs up" with "thumbs down"; without
the pictures' help .66 joins 1,417 of COCO's 5,000 first captions to others', .75 joins 732."""

UNLIKE_PASS = 0.01  # of the pairs of pictures with unlike captions reach the level

_DRAWN, _DRAWS = 10_000, 4  # pictures whose level is measured, and partners of each
_STREAMS = 1_000  # of ``draw``; those below belong to the shuffled captions

_WORDS = "SELECT image, word FROM words"
_GROUPS = "SELECT image, name FROM copy_groups"
_TABLES = ("words_having", "places", "near_captions", "links", "joined", "joined_names")


@dataclass(frozen=True, slots=True)
class Siblings:
    """What was joined; the groups are in the table ``sibling_groups``.

    Attributes:
        level: the least cosine of siblings; None where it could not be measured.
        loosened: pictures of groups that would have been larger than ``LARGEST`` groups, so that only
            their nearest were joined.
    """

    level: float | None
    loosened: int


def find(
    connection: duckdb.DuckDBPyConnection, embedded: Embeddings, folder: Path, join: bool = True
) -> Siblings:
    """Join the groups of copies whose pictures are siblings.

    Args:
        connection: with the views ``images`` and ``words``, see ``tables``, and a table
            ``copy_groups(image BIGINT, name UBIGINT)`` of all decoded images. The table ``sibling_groups``
            with the same columns is created, for the same images.
        embedded: embeddings of the same rows; where not all pictures have theirs, nothing is measured or joined.
        folder: for files of about 8 bytes for each word of a picture and 24 for each of its keys; it is
            left as it was.
        join: False: only measure the level; the sibling groups are those of copies.

    Raises:
        OSError: the disk is full.
    """
    try:
        create_having(connection, "words_having", _WORDS, _GROUPS)
        level = _level(connection, embedded) if embedded.has_all_images else None
        loosened = 0
        if join and level is not None:
            with tempfile.TemporaryDirectory(dir=folder, prefix="siblings-") as inside:
                loosened = _join(connection, embedded, level, Path(inside))
            connection.sql(
                """CREATE TABLE sibling_groups AS SELECT image, coalesce(joined_names.name, copy_groups.name) AS name
                FROM copy_groups LEFT JOIN joined_names USING (image)"""
            )
        else:
            connection.sql("CREATE TABLE sibling_groups AS SELECT image, name FROM copy_groups")
    finally:
        for table in _TABLES:
            connection.sql(f"DROP TABLE IF EXISTS {table}")
    return Siblings(level, loosened)


def _level(connection: duckdb.DuckDBPyConnection, embedded: Embeddings) -> float | None:
    """The cosine that ``UNLIKE_PASS`` of the drawn pairs with unlike captions reach; None without any."""
    pictures = "SELECT image, number, name FROM copy_groups JOIN images USING (image)"
    table = draw.drawn_of(blocks(connection, pictures), _DRAWN, _STREAMS)
    if not len(table):
        return None
    images, numbers, groups = (table[name].to_numpy() for name in ("image", "number", "name"))
    (count,) = connection.sql(f"SELECT count(DISTINCT name) FROM ({_GROUPS})").fetchall()[0]
    words = CaptionWords.read(connection, images, _WORDS, "words_having", count)
    ones, others = [], []
    chosen = np.arange(len(images))
    for stream in range(_STREAMS + 1, _STREAMS + 1 + _DRAWS):
        other = draw.partners(numbers, stream)
        unlike = words.shared(chosen, other) < NEAR_CAPTIONS
        unlike &= groups != groups[other]
        ones.append(chosen[unlike])
        others.append(other[unlike])
    with embedded.images_on_disk(images) as vectors:
        cosines = neighbours.exact_cosines(
            vectors, np.concatenate(ones), vectors, np.concatenate(others)
        )
    cosines = cosines[cosines != 0]  # pictures that were not embedded
    return float(np.quantile(cosines, 1 - UNLIKE_PASS, method="higher")) if len(cosines) else None


def _join(
    connection: duckdb.DuckDBPyConnection, embedded: Embeddings, level: float, folder: Path
) -> int:
    """Fill the tables ``places``, ``joined`` and ``joined_names``; how many pictures were loosened."""
    pictures = Pictures(connection, "words_having", folder, few_of)
    _store_near_captions(connection, pictures)
    _store_links(connection, pictures, embedded, level)
    links = Links(folder)
    nearest = """SELECT one, other FROM links GROUP BY one, other
        ORDER BY one, max(cosine) DESC, other"""
    for block in blocks(connection, nearest):
        links.add(block["one"].to_numpy(), block["other"].to_numpy())
    groups, labels, loosened = links.joined()
    table = pa.table({"picture": groups, "label": labels, "loosened": loosened})
    with registered(connection, "found", table):
        connection.sql(
            """CREATE TABLE joined AS SELECT places.image, label, loosened FROM found
            JOIN places AS firsts USING (picture) JOIN places ON places.name = firsts.name"""
        )
    create_names(connection, "joined_names", "joined", folder)
    return connection.sql("SELECT count(*) FROM joined WHERE loosened").fetchall()[0][0]


def _store_near_captions(connection: duckdb.DuckDBPyConnection, pictures: Pictures) -> None:
    """Create ``near_captions(one, other)``, pairs of pictures; one may come several times."""
    connection.sql("CREATE TABLE near_captions (one BIGINT, other BIGINT)")
    for one, other in neighbours.gathered(pictures.sharing()):
        low, high = neighbours.each_once(one, other)
        near = pictures.shared(low, high) >= NEAR_CAPTIONS
        _insert(connection, "near_captions", {"one": low[near], "other": high[near]})


def _store_links(
    connection: duckdb.DuckDBPyConnection, pictures: Pictures, embedded: Embeddings, level: float
) -> None:
    """Create ``links(one, other, cosine)``: of groups with near captions and pictures, both ways."""
    connection.sql("CREATE TABLE links (one BIGINT, other BIGINT, cosine DOUBLE)")
    involved = (
        """SELECT one FROM near_captions UNION SELECT other FROM near_captions ORDER BY one"""
    )
    chosen = connection.sql(involved).to_arrow_table()["one"].to_numpy()
    with embedded.images_on_disk(pictures.images.take(chosen)) as vectors:
        for one, other in _near_captions(connection):
            first, second = np.searchsorted(chosen, one), np.searchsorted(chosen, other)
            cosines = neighbours.exact_cosines(vectors, first, vectors, second)
            near = cosines >= level
            groups = pictures.groups.take(one[near]), pictures.groups.take(other[near])
            for low, high in (groups, groups[::-1]):
                _insert(connection, "links", {"one": low, "other": high, "cosine": cosines[near]})


def _near_captions(
    connection: duckdb.DuckDBPyConnection,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    query = "SELECT DISTINCT one, other FROM near_captions ORDER BY one, other"
    for block in blocks(connection, query):
        yield block["one"].to_numpy(), block["other"].to_numpy()


def _insert(
    connection: duckdb.DuckDBPyConnection, table: str, columns: dict[str, np.ndarray]
) -> None:
    with registered(connection, "new_rows", pa.table(columns)):
        connection.sql(f"INSERT INTO {table} SELECT * FROM new_rows")
