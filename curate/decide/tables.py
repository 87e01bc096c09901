"""The narrow tables that verdicts are made from: numbers and hashes of pairs, pictures and words, no text.

Each task of the annotations gives a file for each of them; together they are the views ``pairs``, ``images`` and
``words`` of a DuckDB connection. ``row`` numbers all pairs in input order, 0 ... N - 1. An image is called by the
row of its first caption, so ``image = row - caption_index``, and its embedding lies in that row of the annotations.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from curate.measures.thumbnail import BYTES
from curate.run.database import parquet_files

if TYPE_CHECKING:
    import duckdb

UNREADABLE = -1  # as a ``code``
PASSES = 0

PAIRS = pa.schema(
    {
        "row": pa.int64(),
        "image": pa.int64(),
        "key": pa.string(),
        "caption": pa.binary(16),  # 128 bits of a hash; equal for equal captions
        "code": pa.int16(),  # UNREADABLE, PASSES, or the place of the first rule that drops it by this row alone
        "similarity": pa.float32(),  # null for none
        "number": pa.uint64(),  # of ``draw.pair_numbers``
    }
)

IMAGES = pa.schema(
    {
        "image": pa.int64(),
        "key": pa.string(),
        "number": pa.uint64(),  # of ``draw.pair_numbers`` with index 0
        "area": pa.int64(),  # square pixels
        "sha256": pa.string(),  # of the file; "" where it was not read
        # Null, as all that follow but the group, where the picture was not decoded:
        "pixels": pa.uint64(),  # the first 16 digits of ``pixels_sha256``
        "phash": pa.uint64(),
        "phash_mirrored": pa.uint64(),
        "look": pa.uint64(),  # hash of phash and thumbnail, see ``looks.Looks.names``
        "look_mirrored": pa.uint64(),
        "thumbnail": pa.binary(BYTES),
        "given_group": pa.string(),  # what the source's column ``group`` says; null for nothing
    }
)

WORDS = pa.schema(
    {
        # Pairs of decoded images alone: of kept captions other words are common than of all.
        "row": pa.int64(),
        "image": pa.int64(),
        "word": pa.uint64(),  # hashes of the different words of its caption, see ``caption_words.word_hashes``
    }
)

TABLES = {"pairs": PAIRS, "images": IMAGES, "words": WORDS}


def create_views(
    connection: duckdb.DuckDBPyConnection, of_tasks: Mapping[str, Sequence[Path]]
) -> None:
    """Create the views of ``TABLES``, each from the files of all tasks."""
    for name in TABLES:
        connection.sql(f"CREATE VIEW {name} AS SELECT * FROM {parquet_files(of_tasks[name])}")
