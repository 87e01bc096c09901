"""Load the pairs that one CLIP scored in a run, finished or not: as narrow tables in a temporary folder."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING

from curate.run.database import Limits
from curate.run.lacking import is_full
from curate.run.provenance import curate_command
from curate.run.schema import UserError

if TYPE_CHECKING:
    import duckdb
    import numpy as np
    import pyarrow as pa

    from curate.annotate.embeddings import Embeddings
    from curate.decide.shuffled_captions import Null


_COLUMNS = ["key", "caption_index", "caption", "pixels_sha256", "clip_similarity"]


LimitsOf = Callable[[Path], Limits]
"""What queries may use, with their scratch in a folder unless a setting names another one."""


class _Folder:
    """A temporary folder that is deleted with this object, or at the end of the program."""

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="scored-"))
        weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True)


@dataclass(frozen=True)
class Scored:
    """The pairs of a curation that one CLIP scored.

    Attributes:
        clip: its name and weights, see ``clip.models.label``.
        folder: holds ``pairs.parquet`` and ``images.parquet`` with some columns of ``tables``; it is deleted with
            the last object that has it.
        limits: of queries, as ``scored`` takes them.
        embeddings: of the same rows.
        among: the pairs of another curation, without which those of this one are left out.
    """

    clip: str
    folder: _Folder
    limits: LimitsOf
    embeddings: Embeddings
    among: Scored | None = None

    @cached_property
    def own(self) -> np.ndarray:
        """Similarities of the pairs as they were given (N,) float32, ascending."""
        import numpy as np

        with self._connected() as connection:
            found = connection.sql("SELECT similarity FROM pairs").to_arrow_table()
        return np.sort(found["similarity"].to_numpy())

    def null(self) -> Null:
        """Similarities of images with captions of others."""
        from curate.decide.shuffled_captions import shuffled

        with self._connected() as connection:
            return shuffled(connection, self.embeddings)

    def common(self, other: Scored) -> Scored:
        """The pairs that ``other`` has as well, by key and caption."""
        return replace(self, among=other)

    def kept(self, cut: float) -> float:
        """The share of the pairs that a cut keeps."""
        import numpy as np

        return float((self.own >= np.float32(cut)).mean())

    def cut_keeping(self, share: float) -> float | None:
        """The highest cut that keeps this share of the pairs; None if that is no pair."""
        count = round(share * len(self.own))
        return float(self.own[len(self.own) - count]) if count else None

    @contextmanager
    def _connected(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """A connection with the views ``pairs`` and ``images``."""
        from curate.run.database import connect

        with connect(self.limits(self.folder.path)) as connection:
            pairs = _table(self.folder, "pairs")
            if self.among is not None:
                pairs += f" SEMI JOIN ({_table(self.among.folder, 'pairs')}) USING (key, caption)"
            connection.sql(f"CREATE VIEW pairs AS {pairs}")
            connection.sql(f"CREATE VIEW images AS {_table(self.folder, 'images')}")
            yield connection


def _table(folder: _Folder, name: str) -> str:
    from curate.run.database import parquet_files

    return f"SELECT * FROM {parquet_files([folder.path / f'{name}.parquet'])}"


def scored(
    curate_dir: Path, clip: str | None = None, limits: LimitsOf = Limits.in_temporary
) -> Scored | None:
    """The scored pairs of a curation, finished or not; None if ``clip`` has scored none there.

    Args:
        curate_dir: the folder that holds ``annotations/``.
        clip: the label of the CLIP; None takes the one that scored the run.
        limits: of the queries; they lay out what does not fit in memory.

    Raises:
        UserError: several CLIPs have scored parts of the run and none was named, or a part is damaged; or the disk of
            temporary files is full, which needs about 50 bytes a pair.
    """
    from curate.annotate.embeddings import Embeddings
    from curate.annotate.parts import current_parts, read_head

    found: dict[str, list[Path]] = {}
    folder = curate_dir / "annotations"
    everything = sorted(folder.glob("part-*.parquet"))
    for path in current_parts(folder) if clip is None else everything:
        model = read_head(path).get("clip_model")
        if model and clip in (None, _label(model)):
            found.setdefault(model, []).append(path)
    if len(found) > 1:
        if clip is None:
            raise UserError(
                f"{curate_dir.parent} was scored by {', '.join(map(_label, found))} in parts, so that a "
                f"run was interrupted; to finish it, type: {curate_command(curate_dir.parent)}"
            )
        return None
    for model, parts in found.items():
        inside = _Folder()
        try:
            pairs = _write_tables(parts, inside.path)
        except OSError as error:
            if not is_full(error):
                raise
            raise UserError(
                f"{inside.path}: {os.strerror(errno.ENOSPC)}; set TMPDIR to a folder on a disk with more room, and type "
                "the same command again"
            ) from error
        if pairs:
            return Scored(_label(model), inside, limits, Embeddings(parts))
    return None


def _write_tables(parts: Sequence[Path], folder: Path) -> int:
    """Write ``pairs.parquet`` and ``images.parquet``; how many pairs were scored."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from curate.annotate.parts import read_part
    from curate.decide import tables

    names = ("row", "image", "key", "caption", "similarity", "number")
    pairs = pa.schema([tables.PAIRS.field(name) for name in names])
    images = pa.schema([tables.IMAGES.field(name) for name in ("image", "pixels")])
    start = count = 0
    with (
        pq.ParquetWriter(folder / "pairs.parquet", pairs) as to_pairs,
        pq.ParquetWriter(folder / "images.parquet", images) as to_images,
    ):
        for path in parts:
            part = read_part(path, _COLUMNS)
            of_pairs, of_images = _narrow(part, start)
            to_pairs.write_table(pa.table(of_pairs, pairs))
            to_images.write_table(pa.table(of_images, images))
            start += len(part)
            count += len(of_pairs["row"])
    return count


def _narrow(part: pa.Table, start: int) -> tuple[dict[str, pa.Array], dict[str, pa.Array]]:
    """The columns of ``pairs``, of scored ones alone, and of ``images``; rows are numbered from ``start``."""
    import numpy as np
    import pyarrow as pa

    from curate.decide.draw import pair_numbers
    from curate.measures.phash import PIXELS_DIGITS

    index = part["caption_index"].to_numpy().astype(np.int64)
    rows = np.arange(start, start + len(part))
    similarity = part["clip_similarity"].to_pandas().to_numpy(np.float32)
    there = ~np.isnan(similarity)
    kept = part.filter(pa.array(there))
    captions = [text or "" for text in kept["caption"].to_pylist()]
    pairs = {
        "row": rows[there],
        "image": (rows - index)[there],
        "key": kept["key"],
        "caption": [blake2b(text.encode(), digest_size=16).digest() for text in captions],
        "similarity": similarity[there],
        "number": pair_numbers(kept["key"].to_pylist(), index[there]),
    }
    pixels = part.filter(pa.array(index == 0))["pixels_sha256"].to_pylist()
    numbers = [int(digits[:PIXELS_DIGITS], 16) if digits else None for digits in pixels]
    return pairs, {"image": rows[index == 0], "pixels": numbers}


def _label(clip_model: str) -> str:
    """The ledger's name of a CLIP without the fingerprint."""
    return clip_model.rpartition(" ")[0]
