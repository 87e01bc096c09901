"""Write one shard: a tar of samples, its table and, last, its statistics."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from curate.pack.images import CompanionsOf
from curate.pack.plan import Plan
from curate.pack.sample import Sample, encode_sample
from curate.run import parquet
from curate.run.files import HashingWriter, atomic_write, write_certified
from curate.run.manifest import ShardInfo, stats_path
from curate.run.tar import END_OF_TAR


def write_shard(
    curate_dir: Path,
    planned: Plan,
    rows: Sequence[dict[str, Any]],
    digest: str,
    extension: str,
    images: Iterable[bytes],
    progress: Callable[[], object] = lambda: None,
    companions_of: CompanionsOf = lambda row: {},
) -> ShardInfo:
    """Write one tar, its sidecar table and, last, its statistics.

    Args:
        curate_dir: the folder that ``planned.path`` is relative to.
        planned: the shard to write.
        rows: its samples, see ``samples.Samples.rows``; also the rows of the sidecar.
        digest: of ``rows`` and the settings, see ``Samples.digests``; later runs recognise the shard by it.
        extension: ``jpg`` or ``png``.
        images: the bytes of each row's image, in order.
        progress: called after each sample.
        companions_of: the pictures beside a row's image, by kind.
    """
    path = curate_dir / planned.path
    # Before the tar changes, so that an interrupted write is not mistaken for the earlier shard.
    stats_path(path).unlink(missing_ok=True)
    with atomic_write(path) as stream, HashingWriter(stream) as hashing:
        for row, image in zip(rows, images, strict=True):
            sample = Sample(
                row["key"], image, tuple(row["captions"]), _meta(row), companions_of(row)
            )
            hashing.write(*encode_sample(sample, extension))
            progress()
        hashing.write(END_OF_TAR)
    _write_sidecar(path.with_suffix(".parquet"), rows)
    size = path.stat().st_size
    info = ShardInfo(planned.path, planned.split, len(rows), size, hashing.hexdigest())
    _write_stats(path, info, digest)
    return info


def _write_sidecar(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """A table with one row per sample, as img2dataset writes it beside a tar."""
    import pyarrow as pa

    table = pa.Table.from_pylist(list(rows))
    captions = pa.array([row["captions"][0] for row in rows], pa.string())
    parquet.write_table(path, table.add_column(1, "caption", captions))


def _write_stats(path: Path, info: ShardInfo, digest: str) -> None:
    """img2dataset's ``_stats.json``; a shard without it is incomplete."""
    stats = {
        "count": info.samples,
        "successes": info.samples,
        "failed_to_download": 0,
        "failed_to_resize": 0,
        "status_dict": {"success": info.samples},
        "bytes": info.bytes,
        "sha256": info.sha256,
        "plan": digest,
    }
    write_certified(stats_path(path), stats)


def _meta(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if value is not None and value != ""}
