"""Copies of the pictures in a frame, by the tables that ``curate.decide.duplicates`` reads and creates."""

import tempfile
from contextlib import contextmanager
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa

from curate.annotate.embeddings import Embeddings
from curate.decide import draw, duplicates
from curate.decide.looks import COLUMNS, Looks, numbers
from curate.decide.tables import IMAGES
from curate.run.database import Limits, connect
from curate.run.engine.inprocess import InProcess


def images_of(rows: pd.DataFrame) -> pa.Table:
    """The table ``images`` of rows with ``key, pixels_sha256``, ``COLUMNS`` and perhaps ``group``."""
    rows = rows.reset_index(drop=True)
    rows = rows.assign(image=np.arange(len(rows))).drop_duplicates("key")
    decoded = (rows["pixels_sha256"] != "").to_numpy()
    seen = rows[decoded]
    both = Looks.both_ways(seen[list(COLUMNS)]).names()
    found = {
        "pixels": numbers(seen["pixels_sha256"].str.slice(0, 16)),
        "phash": numbers(seen["phash"]),
        "phash_mirrored": numbers(seen["phash_mirrored"]),
        "look": both[: len(seen)],
        "look_mirrored": both[len(seen) :],
        "thumbnail": seen["thumbnail"].to_list(),
    }
    given = rows["group"] if "group" in rows else pd.Series([None] * len(rows), dtype="object")
    table = {
        "image": rows["image"],
        "key": rows["key"],
        "number": draw.pair_numbers(rows["key"], np.zeros(len(rows), np.int64)),
        "area": rows["width"].astype("int64") * rows["height"],
        "sha256": [""] * len(rows),
        "given_group": [name if isinstance(name, str) else None for name in given],
    }
    for name, values in found.items():
        column = np.full(len(rows), None, object)
        column[decoded] = np.array([*values, None], object)[:-1]
        table[name] = column
    return pa.table({n: pa.array(table[n], IMAGES.field(n).type) for n in IMAGES.names})


@contextmanager
def tables(rows: pd.DataFrame, folder: Path, threads: int = 2, memory: int = 500_000_000):
    """A connection with ``images`` and ``left_images`` of rows, all of which are left."""
    limits = Limits(folder / "scratch", memory, threads)
    images = images_of(rows)
    decoded = rows[(rows["pixels_sha256"] != "").to_numpy()]
    best = decoded.groupby("key")["clip_similarity"].max()
    left = pd.DataFrame({"key": images["key"], "image": images["image"], "area": images["area"]})
    left = left[left["key"].isin(best.index)].assign(similarity=lambda of: of["key"].map(best))
    with connect(limits) as connection:
        add(connection, "images", images)
        types = {
            "image": pa.int64(),
            "similarity": pa.float32(),
            "area": pa.int64(),
            "key": pa.string(),
        }
        columns = {n: pa.array(left[n], kind, from_pandas=True) for n, kind in types.items()}
        add(connection, "left_images", pa.table(columns))
        yield connection


def add(connection: duckdb.DuckDBPyConnection, name: str, table: pa.Table) -> None:
    connection.register("added", table)
    connection.sql(f"CREATE TABLE {name} AS FROM added")
    connection.unregister("added")


def groups(rows, split, filters, embedded=None, engine=None, **limits) -> pd.Series:
    """The name of each row's group, "" where its image was not decoded."""
    with (
        tempfile.TemporaryDirectory() as folder,
        tables(rows, Path(folder), **limits) as connection,
    ):
        duplicates.copy_groups(
            connection,
            split,
            filters,
            embedded or Embeddings([]),
            Path(folder) / "work",
            engine or InProcess(),
        )
        found = connection.sql(
            "SELECT key, name FROM images JOIN copy_groups USING (image)"
        ).fetchall()
        assert not [*(Path(folder) / "work").iterdir()]
    named = {key: f"{name:016x}" for key, name in found}
    return rows["key"].map(lambda key: named.get(key, "")).astype("str")


def copies(rows, config, embedded=None, engine=None, **limits) -> pd.Series:
    """The key of the picture that is kept instead of each row's; "" if its own is kept."""
    with (
        tempfile.TemporaryDirectory() as folder,
        tables(rows, Path(folder), **limits) as connection,
    ):
        duplicates.keepers(
            connection,
            config,
            embedded or Embeddings([]),
            Path(folder) / "work",
            engine or InProcess(),
        )
        found = connection.sql(
            "SELECT going.key, kept.key FROM keepers JOIN images AS going USING (image) "
            "JOIN images AS kept ON kept.image = keeper"
        ).fetchall()
    assert len(dict(found)) == len(found)
    kept = dict(found)
    return rows["key"].map(lambda key: kept.get(key, "")).astype("str")
