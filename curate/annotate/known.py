"""What was measured before, found by hash in sorted files that all processes of a run map into memory.

DuckDB sorts the hashes once a run, so that no process holds them: each page of the files is in memory once, for all,
and only while there is room. What a process measures itself it finds in memory, see ``cache``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from curate.annotate.hash_index import Run
from curate.annotate.parts import footer, footer_head, read_part
from curate.annotate.reread import is_marked
from curate.annotate.stored_embeddings import COLUMNS as EMBEDDINGS
from curate.annotate.stored_embeddings import stored_in
from curate.run import arrays, parquet
from curate.run.database import Limits, connect, parquet_files, registered

if TYPE_CHECKING:
    import duckdb

INDEXED = (
    *("key", "version", "sha256", "pixels_sha256"),
    *("caption", "caption_index", "clip_similarity"),
)
PLACE_BITS = 32  # a place is (number of the part << PLACE_BITS) + row

# By kind of index: which rows it has, and the text whose hash they are found by. Keys hold no space. What lacks its
# embedding must not hide an earlier part that has it.
_KINDS = {
    "candidates": (
        "caption_index = 0 AND NOT marked AND (with_image OR pixels_sha256 = '')",
        "key || ' ' || version",
    ),
    "contents": ("caption_index = 0 AND pixels_sha256 <> '' AND with_image", "sha256"),
    "captions": ("clip_similarity IS NOT NULL AND with_text", "caption"),
}
_COLUMNS = ", ".join(INDEXED)
_ROWS_PER_BATCH = 1 << 17


def found_by(text: str) -> int:
    """64 bits of a hash, those of DuckDB's ``md5_number_lower``. Whoever finds a row by it compares the text."""
    digest = hashlib.md5(text.encode(), usedforsecurity=False).digest()
    return int.from_bytes(digest[8:], "little")


def candidate_found_by(key: str, version: str) -> int:
    """The same of what a candidate is recognised by."""
    return found_by(f"{key} {version}")


@dataclass(frozen=True)
class Known:
    """Parts, and the files that say which of their rows is found by which hash.

    Attributes:
        folder: of the files; None where there are no parts.
        parts: in the order of precedence: what a later one has counts.
        incomplete: so many at the start lack a measure.
    """

    folder: Path | None = None
    parts: tuple[Path, ...] = ()
    incomplete: int = 0

    def opened(self, kind: str) -> Run | None:
        """The index of a kind, mapped into memory; None where it is empty."""
        if self.folder is None:
            return None
        names, places = _files(kind)
        count = (arrays.path_of(self.folder, names).stat().st_size // 8,)
        if not count[0]:
            return None
        return (
            arrays.mapped(self.folder, names, np.uint64, count),
            arrays.mapped(self.folder, places, np.int64, count),
        )


def index_those_there(
    listed: Callable[[], tuple[Sequence[Path], Sequence[Path]]],
    folder: Path,
    limits: Limits,
    leave_out: Callable[[Path], None],
) -> Known:
    """As ``index``, of parts whose footers alone were read, and which other processes may delete meanwhile.

    Args:
        listed: gives the parts that lack a measure, and those that have all; called again where some were lost.
        folder: for the files.
        limits: of the sorting.
        leave_out: called with a part that is damaged, which must not be listed again.

    Raises:
        UserError: see ``index``.
    """
    while True:
        incomplete, complete = listed()
        parts = [*incomplete, *complete]  # the later ones take precedence
        try:
            return index(parts, folder, limits, len(incomplete))
        except Exception as error:
            is_gone = not all(path.is_file() for path in parts)
            damaged = [] if is_gone or not _may_be_damage(error) else _damaged(parts)
            if not (is_gone or damaged):
                raise
            for path in damaged:
                leave_out(path)


def _may_be_damage(error: Exception) -> bool:
    """Whether a query may have failed for the bytes of a file; not for the lack of memory or of room on the disk."""
    import duckdb

    lacks_memory = isinstance(error.__cause__ or error, (MemoryError, duckdb.OutOfMemoryException))
    return not lacks_memory and getattr(error, "errno", None) is None


def _damaged(parts: Sequence[Path]) -> list[Path]:
    """Those whose bytes are no longer what was written."""

    def is_damaged(path: Path) -> bool:
        try:
            return not parquet.is_intact(path)
        except FileNotFoundError:  # deleted meanwhile
            return True

    with ThreadPoolExecutor() as pool:
        return [
            path for path, found in zip(parts, pool.map(is_damaged, parts), strict=True) if found
        ]


def index(parts: Sequence[Path], folder: Path, limits: Limits, incomplete: int = 0) -> Known:
    """Index ``parts`` into files in ``folder``. Of most parts only some columns are read, unchecked.

    Whoever takes a row has its part checked then, and compares the row with what was looked for.

    Raises:
        UserError: a part of an earlier release, which has no checksum, is damaged.
    """
    if not parts:
        return Known()
    folder.mkdir(parents=True, exist_ok=True)
    with connect(limits) as connection:
        _create_rows(connection, parts)
        for kind, (condition, text) in _KINDS.items():
            query = (
                f"SELECT md5_number_lower({text}) AS name, max(place) AS place FROM measured "
                f"WHERE {condition} GROUP BY name ORDER BY name"
            )
            _write(connection, query, folder, kind)
    return Known(folder, tuple(parts), incomplete)


def _create_rows(connection: duckdb.DuckDBPyConnection, parts: Sequence[Path]) -> None:
    """The view ``measured``: what is indexed of each row, its place, whether its part is marked, what is stored.

    Parts of earlier releases, whose columns have other names or whose bytes nobody has checked, are read by Arrow.
    """
    numbers = {path: number for number, path in enumerate(parts)}
    with ThreadPoolExecutor() as pool:
        kinds = dict(zip(parts, pool.map(_kind, parts), strict=True))
    current = [path for path in parts if kinds[path] != "old"]
    sparse = [path for path in current if kinds[path] == "sparse"]
    queries = []
    for name, paths, (image, text) in (
        ("whole", [path for path in current if kinds[path] == "whole"], ("true", "true")),
        ("sparse", sparse, (f"{name} IS NOT NULL" for name in EMBEDDINGS)),
    ):
        if paths:
            _create_files(connection, f"{name}_files", paths, numbers)
            queries.append(
                f"SELECT {_COLUMNS}, (number << {PLACE_BITS}) + file_row_number AS place, marked, with_image, with_text "
                f"FROM (SELECT {_COLUMNS}, {image} AS with_image, {text} AS with_text, file_index::BIGINT AS within, "
                f"file_row_number FROM {parquet_files(paths, numbered=True)}) "
                f"JOIN {name}_files USING (within)"
            )
    for path in sorted({*parts} - {*current}):
        name = f"old_{numbers[path]}"
        with registered(connection, "given", _indexed(path, numbers[path])):
            connection.sql(f"CREATE TABLE {name} AS SELECT * FROM given")
        queries.append(f"FROM {name}")
    connection.sql(f"CREATE VIEW measured AS {' UNION ALL BY NAME '.join(queries)}")


def _indexed(path: Path, number: int) -> pa.Table:
    """The rows of ``measured`` of a part that Arrow reads."""
    is_whole = stored_in(footer_head(path)).is_everything
    table = read_part(path, INDEXED if is_whole else (*INDEXED, *EMBEDDINGS))
    columns = {name: table[name] for name in INDEXED}
    columns["place"] = pa.array(np.arange(len(table)) + (number << PLACE_BITS))
    columns["marked"] = pa.repeat(is_marked(path), len(table))
    for name, embedding in zip(("with_image", "with_text"), EMBEDDINGS, strict=True):
        columns[name] = pa.repeat(True, len(table)) if is_whole else table[embedding].is_valid()
    return pa.table(columns)


def _create_files(
    connection: duckdb.DuckDBPyConnection,
    name: str,
    paths: Sequence[Path],
    numbers: dict[Path, int],
) -> None:
    """A table of files: the number of each among all parts, its place in ``paths``, and whether it is marked."""
    files = {
        "number": [numbers[path] for path in paths],
        "within": range(len(paths)),
        "marked": [is_marked(path) for path in paths],
    }
    with registered(connection, "given", pa.table(files)):
        connection.sql(f"CREATE TABLE {name} AS SELECT * FROM given")


def _kind(path: Path) -> str:
    """ "old" of a part without checksum or with columns of other names; else whether all embeddings are stored."""
    names = footer(path).schema.to_arrow_schema().names
    if parquet.checksum_in(path) is None or not {*INDEXED} <= {*names}:
        return "old"
    return "whole" if stored_in(footer_head(path)).is_everything else "sparse"


def _write(connection: duckdb.DuckDBPyConnection, query: str, folder: Path, kind: str) -> None:
    """Write the names and the places of a query, in its order, as plain numbers."""
    found = connection.sql(query).to_arrow_reader(_ROWS_PER_BATCH)
    with arrays.writing(folder, *_files(kind)) as (names, places):
        for batch in found:
            names.write(batch.column("name").to_numpy().astype(np.uint64))
            places.write(batch.column("place").to_numpy().astype(np.int64))


def _files(kind: str) -> tuple[str, str]:
    return f"{kind}-names", f"{kind}-places"
