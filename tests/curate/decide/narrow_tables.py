"""Narrow tables of small frames, as the tasks of an annotation would write them."""

from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from curate.decide import draw, tables
from curate.decide.caption_words import word_hashes
from curate.run.database import Limits, connect, registered


def narrowed(table: pd.DataFrame) -> dict[str, pa.Table]:
    """The tables ``pairs, images, words`` of rows numbered from 0.

    Args:
        table: with ``key, caption, caption_index, pixels_sha256`` and perhaps ``clip_similarity, group``;
            the pixels are "" where the picture was not decoded.
    """
    index = table["caption_index"].to_numpy(np.int64)
    rows = np.arange(len(table))
    captions = table["caption"].fillna("").tolist()
    similarity = (
        table["clip_similarity"] if "clip_similarity" in table else pd.Series(np.nan, table.index)
    )
    pairs = {
        "row": rows,
        "image": rows - index,
        "key": table["key"].tolist(),
        "caption": [blake2b(text.encode(), digest_size=16).digest() for text in captions],
        "code": np.zeros(len(table), np.int16),
        "similarity": [None if np.isnan(value) else value for value in similarity],
        "number": draw.pair_numbers(table["key"], index),
    }
    first = table[index == 0]
    decoded = (first["pixels_sha256"] != "").to_numpy()
    group = first["group"] if "group" in first else pd.Series("", first.index)
    images = {
        "image": rows[index == 0],
        "key": first["key"].tolist(),
        "number": draw.pair_numbers(first["key"], np.zeros(len(first), np.int64)),
        "pixels": [int(pixels, 16) if pixels else None for pixels in first["pixels_sha256"]],
        "given_group": [name if isinstance(name, str) and name else None for name in group],
    }
    position, word = word_hashes(captions)
    there = np.isin((rows - index)[position], rows[index == 0][decoded])
    words = {
        "row": position[there],
        "image": (rows - index)[position[there]],
        "word": word[there],
    }
    return {
        "pairs": _typed(pairs, tables.PAIRS),
        "images": _typed(images, tables.IMAGES),
        "words": _typed(words, tables.WORDS),
    }


def _typed(columns: dict[str, Any], schema: pa.Schema) -> pa.Table:
    size = len(next(iter(columns.values())))
    return pa.table(
        {
            field.name: pa.array(columns.get(field.name, [None] * size), field.type)
            for field in schema
        }
    )


@contextmanager
def database(
    folder: Path, memory: int = 2_000_000_000, threads: int = 2, **contents: pa.Table
) -> Iterator:
    """A connection with these tables; ``folder`` is for what does not fit in memory."""
    with connect(Limits(folder / "scratch", memory, threads)) as connection:
        for name, table in contents.items():
            create(connection, name, table)
        yield connection


def create(connection, name: str, table: pa.Table) -> None:
    with registered(connection, "to_create", table):
        connection.sql(f"CREATE TABLE {name} AS SELECT * FROM to_create")


def groups_table(table: pd.DataFrame, groups: pd.Series) -> pa.Table:
    """``image, name`` of the first rows whose group of 16 hex digits is not empty."""
    chosen = (table["caption_index"] == 0).to_numpy() & (groups != "").to_numpy()
    names = [int(name, 16) for name in groups[chosen]]
    return pa.table({"image": np.flatnonzero(chosen), "name": pa.array(names, pa.uint64())})
