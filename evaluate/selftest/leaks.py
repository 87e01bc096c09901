"""Planted twins across the split, as embeddings and captions: whether the curation finds and joins them."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from evaluate.selftest.case import Case, Outcome, share

if TYPE_CHECKING:
    import duckdb
    import pandas as pd

    from curate.annotate.embeddings import Embeddings

THINGS = 200  # training pictures
TWINS = 60  # held-out ones that are twins of one
NUMBERS = 32  # of an embedding
FOUND = 0.95  # the least share of the twins
FALSE_ALARMS = 0.05  # the most pictures without a twin; the training warns from here on


def cases() -> Iterator[Case]:
    """Twins left across the split, and twins joined before it."""
    yield Case(
        f"{TWINS} held-out pictures that are edited copies of training pictures, captions alike",
        f"at least {share(FOUND)} found",
        partial(_left, twins=True),
    )
    yield Case(
        f"{TWINS} held-out pictures of other things",
        f"at most {share(FALSE_ALARMS)} accused",
        partial(_left, twins=False),
    )
    yield Case(
        f"{TWINS} twins among {THINGS} pictures, before the split",
        f"at least {share(FOUND)} join their twin's group, and no others",
        _joined,
    )


def planted(rng: np.random.Generator, twins: bool) -> tuple[pd.DataFrame, np.ndarray]:
    """Pairs of training pictures and held-out ones, and their embeddings [N, D]."""
    import pandas as pd

    own = rng.normal(size=(THINGS, NUMBERS))
    others = own[:TWINS] if twins else rng.normal(size=(TWINS, NUMBERS))
    vectors = np.concatenate([own, others + 0.3 * rng.normal(size=(TWINS, NUMBERS))])
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    captions = [f"thing{number} of set{number % 7}" for number in range(THINGS)]
    named = captions[:TWINS] if twins else [f"other{number} thing" for number in range(TWINS)]
    count = len(vectors)
    table = pd.DataFrame(
        {
            "key": [f"picture-{number:04d}" for number in range(count)],
            "caption": [*captions, *(f"{caption} in blue" for caption in named)],
            "caption_index": 0,
            "pixels_sha256": [
                f"{number * 0x9E3779B97F4A7C15 % 2**64:016x}" for number in range(count)
            ],
            "split": ["train"] * THINGS + ["val"] * TWINS,
        }
    )
    return table, vectors.astype(np.float32)


@contextmanager
def _narrow(
    table: pd.DataFrame, vectors: np.ndarray
) -> Iterator[tuple[duckdb.DuckDBPyConnection, Embeddings]]:
    """What ``siblings`` and ``leaks`` read, in a temporary folder; each picture is a group of its own."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from curate.annotate.embeddings import Embeddings
    from curate.decide.caption_words import word_hashes
    from curate.decide.draw import pair_numbers
    from curate.run.database import Limits, connect, registered

    rows = np.arange(len(table))
    pixels = np.array([int(digits, 16) for digits in table["pixels_sha256"]], np.uint64)
    numbers = pair_numbers(table["key"], np.zeros(len(table), np.int64))
    owner, words = word_hashes(table["caption"].tolist())
    tables = {
        "pairs": {"row": rows, "image": rows},
        "images": {"image": rows, "number": numbers, "pixels": pixels}
        | {"given_group": pa.nulls(len(rows), pa.string())},
        "words": {"row": owner, "image": owner, "word": words},
        "copy_groups": {"image": rows, "name": pixels},
        "kept_rows": {"row": rows},
        "kept_images": {"image": rows, "split": table["split"].tolist(), "name": pixels},
    }
    with tempfile.TemporaryDirectory() as folder:
        part = Path(folder, "part.parquet")
        stored = pa.array([row.tobytes() for row in vectors], pa.binary())
        said = {name: table[name].tolist() for name in ("key", "caption")}
        pq.write_table(pa.table(said | {"image_embedding": stored}), part)
        with connect(Limits.in_temporary(Path(folder))) as connection:
            for name, columns in tables.items():
                with registered(connection, "planted", pa.table(columns)):
                    connection.sql(f"CREATE TABLE {name} AS SELECT * FROM planted")
            yield connection, Embeddings([part])


def _left(twins: bool) -> Outcome:
    from curate.decide import leaks, siblings

    with _narrow(*planted(np.random.default_rng(0), twins)) as (connection, embedded):
        level = siblings.find(connection, embedded, embedded.folder, join=False).level
        found = leaks.measure(connection, embedded, embedded.parts, level, embedded.folder)
        found = found.share("val") or 0.0
    right = found >= FOUND if twins else found <= FALSE_ALARMS
    return Outcome(f"{share(found)} have a twin in train", right)


def _joined() -> Outcome:
    from curate.decide import siblings

    with _narrow(*planted(np.random.default_rng(1), twins=True)) as (connection, embedded):
        siblings.find(connection, embedded, embedded.folder)
        found = connection.sql("SELECT name FROM sibling_groups ORDER BY image").to_arrow_table()
    groups = found["name"].to_numpy()
    joined = float(np.mean(groups[:TWINS] == groups[THINGS:]))
    others = THINGS - len(set(groups[:THINGS]))  # training pictures are of different things
    text = f"{share(joined)} join; {others} pictures of different things joined"
    return Outcome(text, joined >= FOUND and others == 0)
