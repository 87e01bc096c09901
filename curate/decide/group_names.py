"""What a duplicate group is called: by its members alone, so that added data moves only what it joins."""

from __future__ import annotations

from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from curate.run.database import named, parquet_files

if TYPE_CHECKING:
    import duckdb

_BLOCK = 1 << 17  # names that are hashed at a time
_HASHED = pa.schema({"given": pa.string(), "name": pa.uint64()})


def create_names(
    connection: duckdb.DuckDBPyConnection, table: str, groups: str, folder: Path
) -> None:
    """Create ``table(image BIGINT, name UBIGINT)``: the name of each image's group, its 16 hex digits as a number.

    It is the hash of the least ``given_group`` in the group, or else the least ``pixels``.

    Args:
        connection: with the view ``images``, see ``tables``.
        table: its name.
        groups: a table or view with ``image BIGINT, label BIGINT`` of decoded images, in any numbering of groups.
        folder: for a file, which stays there.
    """
    connection.sql(
        "CREATE TABLE names_least AS SELECT label, min(pixels) AS pixels, "
        "min(nullif(given_group, '')) AS given "
        f"FROM {named(groups)} JOIN images USING (image) GROUP BY label"
    )
    path = folder / f"{table}-names.parquet"
    texts = "SELECT DISTINCT given FROM names_least WHERE given IS NOT NULL"
    with pq.ParquetWriter(path, _HASHED) as writer:
        for batch in connection.sql(texts).to_arrow_reader(_BLOCK):
            given = batch.column("given")
            numbers = pa.array([_hash(text) for text in given.to_pylist()], pa.uint64())
            writer.write_table(pa.table([given, numbers], schema=_HASHED))
    connection.sql(
        f"CREATE TABLE {named(table)} AS SELECT image, coalesce(hashed.name, least.pixels) AS name "
        f"FROM {named(groups)} JOIN names_least AS least USING (label) "
        f"LEFT JOIN {parquet_files([path])} AS hashed ON hashed.given = least.given"
    )
    connection.sql("DROP TABLE names_least")


def _hash(given: str) -> int:
    return int.from_bytes(blake2b(given.encode(), digest_size=8).digest(), "big")
