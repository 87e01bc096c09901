"""Siblings that are left on two sides: kept training pictures near a held-out one, with near captions.

Groups keep siblings together where ``siblings`` finds them. Here each held-out picture is compared with every
training picture, and the captions of the nearest ones are compared with its own: where they are near, and the
words they share, if each came independently of the others, would be those of few groups.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pyarrow as pa

from curate.annotate.embeddings import Embeddings
from curate.annotate.rows import take
from curate.decide import draw
from curate.decide.caption_words import CaptionWords, create_having, few_of
from curate.decide.config import HELD_OUT
from curate.decide.neighbours import UNSURE, exact_cosines
from curate.decide.number_files import NumberFile
from curate.decide.siblings import NEAR_CAPTIONS
from curate.run.database import blocks, quoted, registered

if TYPE_CHECKING:
    import duckdb

LOOKED_AT = (
    2_000  # held-out pictures of a side, drawn by hash; a million training pictures take a minute
)
COLUMNS = ["key", "split", "other_key", "cosine", "shared", "caption", "other_caption"]

_NEAREST = 5  # whose captions are compared: of crops and rotations the original is the first or among these
_STREAM = 2_000  # of ``draw``; those of other draws are below
_BLOCK = 1 << 12  # training pictures that are compared at a time
_SLICE = (
    1 << 8
)  # held-out pictures that are: where all are equally near, a pair takes some 60 bytes
_READ = 1 << 16  # training pictures that are read ahead
_TRAIN = np.dtype([("image", "<i8"), ("number", "<u8")])
_TEXTS = ["key", "split", "other_key", "caption", "other_caption"]
_NO_PICTURES = pa.schema(
    {"image": pa.int64(), "number": pa.uint64(), "split": pa.string()}
).empty_table()


@dataclass(frozen=True, slots=True)
class Leaks:
    """What is left across the sides.

    Attributes:
        pairs: a row with ``COLUMNS`` for each held-out picture that has a sibling in train, with the
            nearest of these; the nearest pairs first. ``shared`` is of the captions, see ``caption_words``.
        looked_at: held-out pictures that were compared, by side; those without an embedding are not.
        level: the least cosine that counts; None where it could not be measured, nor anything else.
    """

    pairs: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=COLUMNS))
    looked_at: dict[str, int] = field(default_factory=dict)
    level: float | None = None

    def share(self, side: str) -> float | None:
        """The share of a side's pictures that have a sibling in train; None where none was compared."""
        looked_at = self.looked_at.get(side, 0)
        return float((self.pairs["split"] == side).sum() / looked_at) if looked_at else None

    def summary(self) -> dict[str, dict[str, int]]:
        """For each side how many pictures were compared, and how many have a sibling in train."""
        found = self.pairs["split"].value_counts()
        return {
            side: {"looked_at": count, "with_sibling_in_train": int(found.get(side, 0))}
            for side, count in self.looked_at.items()
        }


def measure(
    connection: duckdb.DuckDBPyConnection,
    embedded: Embeddings,
    parts: Sequence[Path],
    level: float | None,
    folder: Path,
) -> Leaks:
    """Search the training pictures for siblings of the held-out ones.

    Args:
        connection: with the views ``pairs, images, words``, a table ``kept_rows(row BIGINT)`` of the pairs that
            are kept, and ``kept_images(image BIGINT, split VARCHAR, name UBIGINT)``, their pictures, where
            ``name`` is the duplicate group. Only the words of kept captions count.
        embedded: embeddings of the same rows.
        parts: of the annotations, for the captions of what is found.
        level: of ``siblings.Siblings``.
        folder: for working files.
    """
    (groups,) = connection.sql("SELECT count(DISTINCT name) FROM kept_images").fetchall()[0]
    if level is None or not groups:
        return Leaks()
    held_out = _drawn(connection)
    vectors = embedded.images_or_zero(held_out["image"].to_numpy())
    there = vectors.any(axis=1)
    held_out, vectors = held_out.filter(pa.array(there)), vectors[there]
    sides = held_out["split"].to_pylist()
    looked_at = {side: sides.count(side) for side in HELD_OUT}
    with tempfile.TemporaryDirectory(dir=folder, prefix="leaks-") as inside:
        near = _nearest(vectors, _blocks(connection, embedded, Path(inside)))
    own = held_out["image"].to_numpy()
    shared, weight = _compared(connection, own, near.images, groups)
    # By Spärck Jones' weights; in CIFAR-10 the nearest pictures of "a photo of a dog" are other dogs.
    rare = np.log(groups / few_of(groups))
    counts = (near.images >= 0) & (near.cosines >= level)
    counts &= (weight >= rare - 1e-9) & (shared >= NEAR_CAPTIONS)
    first = counts.argmax(axis=1)[:, None]
    has = counts.any(axis=1)
    twins, cosines, alike = (
        np.take_along_axis(of, first, 1)[has, 0] for of in (near.images, near.cosines, shared)
    )
    own_said, twin_said = (
        _said(connection, parts, embedded.starts, images) for images in (own[has], twins)
    )
    pairs = pd.DataFrame(
        {
            "key": own_said["key"].to_pylist(),
            "split": [side for side, found in zip(sides, has, strict=True) if found],
            "other_key": twin_said["key"].to_pylist(),
            "cosine": cosines,
            "shared": alike,
            "caption": own_said["caption"].to_pylist(),
            "other_caption": twin_said["caption"].to_pylist(),
        },
    ).astype(dict.fromkeys(_TEXTS, "str"))
    pairs = pairs.sort_values(["cosine", "key"], ascending=[False, True], ignore_index=True)
    return Leaks(pairs[COLUMNS], looked_at, level)


def _drawn(connection: duckdb.DuckDBPyConnection) -> pa.Table:
    """The held-out pictures that are looked at: ``image, number, split``."""
    found = []
    for side in HELD_OUT:
        of_side = f"""SELECT image, number, split FROM kept_images JOIN images USING (image)
            WHERE split = {quoted(side)}"""
        found.append(draw.drawn_of(blocks(connection, of_side), LOOKED_AT, _STREAM))
    some = [table for table in found if len(table)]
    return pa.concat_tables(some) if some else _NO_PICTURES


def _compared(
    connection: duckdb.DuckDBPyConnection, own: np.ndarray, near: np.ndarray, groups: int
) -> tuple[np.ndarray, np.ndarray]:
    """What the captions of pictures (M,) share with those of the near ones (M, n): its part and its weight, (M, n)."""
    others = np.maximum(near, own[:, None] * (near < 0))  # itself for none
    images = np.unique(np.concatenate([own, others.ravel()]))
    kept = "SELECT image, word FROM words SEMI JOIN kept_rows USING (row)"
    with registered(connection, "compared", pa.table({"image": images})):
        connection.sql(
            f"CREATE TABLE compared_words AS SELECT DISTINCT word FROM ({kept}) SEMI JOIN compared USING (image)"
        )
    try:
        said = f"SELECT image, word FROM ({kept}) SEMI JOIN compared_words USING (word)"
        create_having(connection, "kept_having", said, "SELECT image, name FROM kept_images")
        words = CaptionWords.read(connection, images, kept, "kept_having", groups)
    finally:
        for table in ("compared_words", "kept_having"):
            connection.sql(f"DROP TABLE IF EXISTS {table}")
    one = np.searchsorted(images, np.repeat(own, near.shape[1]))
    other = np.searchsorted(images, others.ravel())
    shared, weight = words.shared(one, other), words.weight_of_both(one, other)
    return shared.reshape(near.shape), weight.reshape(near.shape)


def _said(
    connection: duckdb.DuckDBPyConnection,
    parts: Sequence[Path],
    starts: np.ndarray,
    images: np.ndarray,
) -> pa.Table:
    """The ``key`` and the first kept ``caption`` of images (n,), in their order."""
    chosen = pa.table({"place": np.arange(len(images)), "image": images})
    query = """SELECT min(row) AS row FROM pairs SEMI JOIN kept_rows USING (row)
        JOIN chosen USING (image) GROUP BY place ORDER BY place"""
    with registered(connection, "chosen", chosen):
        rows = connection.sql(query).to_arrow_table()["row"].to_numpy()
    return take(parts, rows, ["key", "caption"], starts)


def _blocks(
    connection: duckdb.DuckDBPyConnection, embedded: Embeddings, folder: Path
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Training pictures (n,), the hashes of their keys (n,) and embeddings (n, D), from the parts in turn."""
    train = NumberFile(folder / "train", _TRAIN)
    query = """SELECT image, number FROM kept_images JOIN images USING (image)
        WHERE split = 'train' ORDER BY image"""
    for block in blocks(connection, query):
        rows = np.empty(len(block), _TRAIN)
        for name in _TRAIN.names or ():
            rows[name] = block[name].to_numpy()
        train.append(rows)
    waiting = train.read(0, 0)
    read = 0
    for found, vectors in embedded.image_blocks():
        while read < len(train) and (not len(waiting) or waiting["image"][-1] < found[-1]):
            waiting = np.concatenate([waiting, train.read(read, read + _READ)])
            read = min(read + _READ, len(train))
        until = int(np.searchsorted(waiting["image"], found[-1], "right"))
        here, waiting = waiting[:until], waiting[until:]
        among = np.isin(here["image"], found, assume_unique=True)
        taken = here[among]
        near = vectors[np.searchsorted(found, taken["image"])]
        for start in range(0, len(taken), _BLOCK):
            block = slice(start, start + _BLOCK)
            yield taken["image"][block], taken["number"][block], near[block]


@dataclass(frozen=True, slots=True)
class _Near:
    """The nearest training pictures of M vectors, nearest first: of equally near ones the lesser hash.

    Attributes:
        images: (M, _NEAREST), -1 where there are too few.
        numbers: the same shape, the hashes of their keys.
        cosines: the same shape.
    """

    images: np.ndarray
    numbers: np.ndarray
    cosines: np.ndarray


def _nearest(
    vectors: np.ndarray, training: Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]
) -> _Near:
    """The ``_NEAREST`` of each vector (M, D), however the training pictures are cut into blocks."""
    shape = len(vectors), _NEAREST
    near = _Near(np.full(shape, -1), np.zeros(shape, np.uint64), np.full(shape, -2.0))
    for images, numbers, others in training:
        for start in range(0, len(vectors), _SLICE):
            rows = slice(start, start + _SLICE)
            row, place = _maybe_nearest(vectors[rows], others, near.cosines[rows, -1])
            exact = exact_cosines(vectors[rows], row, others, place)
            known = np.repeat(np.arange(len(near.images[rows])), _NEAREST)
            row = np.concatenate([known, row])
            numbers_of_both = np.concatenate([near.numbers[rows].ravel(), numbers[place]])
            cosines = np.concatenate([near.cosines[rows].ravel(), exact])
            order = np.lexsort((numbers_of_both, -cosines, row))
            begins = np.searchsorted(row[order], known[::_NEAREST])
            first = order[begins[:, None] + np.arange(_NEAREST)]
            near.images[rows] = np.concatenate([near.images[rows].ravel(), images[place]])[first]
            near.numbers[rows], near.cosines[rows] = numbers_of_both[first], cosines[first]
    return near


def _maybe_nearest(
    vectors: np.ndarray, others: np.ndarray, least: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Positions in ``vectors`` and in ``others`` of all pairs that may be among the ``_NEAREST`` of the first.

    Args:
        vectors: (M, D).
        others: (n, D).
        least: (M,) the cosine that a pair needs at least.
    """
    products = vectors @ others.T
    if len(others) >= _NEAREST:  # a sort of all is ten times slower
        least = np.maximum(least, np.partition(products, -_NEAREST, axis=1)[:, -_NEAREST])
    # Both products that are compared may err.
    row, place = np.nonzero(products >= least[:, None] - 2 * UNSURE)
    return row, place
