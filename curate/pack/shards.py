"""Stage 3: kept samples as WebDataset tars with sidecars and a manifest, the same bytes every time."""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from curate.readers.sample import Sample
from curate.run.cli import UserError, run_arguments
from curate.run.files import HashingWriter, atomic_write, read_json, remove_parts, write_json

VERSION = 1
# Formats that are stored as they are, by Pillow's names; MPO is a JPEG with more pictures behind it.
EXTENSIONS = {"JPEG": "jpg", "MPO": "jpg", "PNG": "png"}
IMAGE_EXTENSIONS = tuple(dict.fromkeys(EXTENSIONS.values()))
END_OF_TAR = bytes(2 * tarfile.BLOCKSIZE)
_EMPTY_HEADER = tarfile.TarInfo("").tobuf(tarfile.USTAR_FORMAT)


@dataclass(frozen=True, slots=True)
class ShardInfo:
    """A shard as the manifest lists it; ``path`` is relative to the manifest's folder."""

    path: str
    split: str
    samples: int
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a finished curation holds. It is written last: where it is, everything is."""

    shards: tuple[ShardInfo, ...]
    totals: dict[str, Any]
    fingerprint: dict[str, str]
    image_format: str

    def shards_of(self, split: str) -> list[ShardInfo]:
        """The shards of one side, in order."""
        return [shard for shard in self.shards if shard.split == split]


def read_manifest(curate_dir: Path) -> Manifest:
    """Read ``curate_dir/manifest.json``.

    Raises:
        FileNotFoundError: nothing was curated there, or curation has not finished.
        UserError: the manifest is of another version of this program.
    """
    path = curate_dir / "manifest.json"
    retry = f"python -m curate {run_arguments(curate_dir.parent)} with the keys of its data set"
    if not path.is_file():
        raise FileNotFoundError(f"{curate_dir} holds no finished curation; type: {retry}")
    content = read_json(path)
    if content is None:
        raise UserError(f"{path} is damaged; type: {retry}")
    if content.get("version") != VERSION:
        raise UserError(
            f"{path} has version {content.get('version')}, not {VERSION}; type: {retry}"
        )
    return Manifest(
        shards=tuple(ShardInfo(**shard) for shard in content["shards"]),
        totals=content["totals"],
        fingerprint=content["fingerprint"],
        image_format=content["image_format"],
    )


def write_manifest(curate_dir: Path, manifest: Manifest) -> None:
    """Write ``manifest.json``; call it when everything else is in place."""
    write_json(curate_dir / "manifest.json", {"version": VERSION, **asdict(manifest)})


def read_shard(path: Path) -> Iterator[Sample]:
    """The samples of one tar, in order.

    Raises:
        ValueError: the tar is damaged, members of a sample are not adjacent, or one is missing;
            names the shard.
    """
    try:
        yield from _read_tar(path)
    except tarfile.ReadError as error:
        raise ValueError(
            f"{path} is damaged ({error}); type: python -m curate, it writes it anew"
        ) from error


def _read_tar(path: Path) -> Iterator[Sample]:
    seen: set[str] = set()
    with tarfile.open(path) as tar:
        for key, members in groupby(tar, key=lambda member: member.name.partition(".")[0]):
            if key in seen:
                raise ValueError(f"{path}: the members of sample {key!r} are not adjacent")
            seen.add(key)
            files = {member.name.partition(".")[2]: _content(tar, member) for member in members}
            image = next((files[name] for name in IMAGE_EXTENSIONS if name in files), None)
            if image is None or not {"json", "txt"} <= files.keys():
                raise ValueError(f"{path}: sample {key!r} has only {', '.join(files)}")
            try:
                meta = json.loads(files["json"])
            except ValueError as error:
                raise ValueError(
                    f"{path}: the json of sample {key!r} is damaged: {error}"
                ) from error
            if not isinstance(meta, dict) or not isinstance(meta.get("captions"), list):
                raise ValueError(f"{path}: the json of sample {key!r} holds no list of captions")
            yield Sample(key, image, tuple(meta["captions"]), meta)


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    stream = tar.extractfile(member)
    if stream is None:
        raise ValueError(f"{tar.name}: {member.name} is no file")
    return stream.read()


def encode_sample(sample: Sample, extension: str) -> list[bytes]:
    """USTAR bytes of a sample in parts: image, json and txt side by side, no times, no owners."""
    meta = json.dumps(sample.meta, ensure_ascii=False, sort_keys=True, allow_nan=False)
    members = (
        (extension, sample.image),
        ("json", meta.encode()),
        ("txt", sample.caption.encode()),
    )
    parts: list[bytes] = []
    for suffix, content in members:
        padding = bytes(-len(content) % tarfile.BLOCKSIZE)
        parts += [header(f"{sample.key}.{suffix}", len(content)), content, padding]
    return parts


def header(name: str, size: int) -> bytes:
    """What ``tarfile`` writes ahead of a plain file in USTAR format; eight times as fast as it does.

    ``name`` is ASCII of up to 100 characters, ``size`` below 8 GiB.
    """
    block = bytearray(_EMPTY_HEADER)
    block[: len(name)] = name.encode("ascii")
    block[124:136] = b"%011o\0" % size
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


@dataclass(frozen=True, slots=True)
class Plan:
    """A shard before it is written: where it goes, and the keys of its samples in order."""

    path: str
    split: str
    keys: list[str]


def plan(sides: Mapping[str, Sequence[str]], max_samples: int) -> list[Plan]:
    """Deal the keys of each side out to shards of equal size, one more or less, shuffled by hash.

    A shuffled order gives each shard a bit of everything, which a reader that shuffles a few
    thousand samples needs; hashing the key makes it the same order for the same data.
    """
    plans = []
    for split, keys in sorted(sides.items()):
        shuffled = sorted(keys, key=lambda key: hashlib.blake2b(key.encode()).digest())
        count = -(-len(shuffled) // max_samples)
        for number in range(count):
            begin, end = (len(shuffled) * edge // count for edge in (number, number + 1))
            part = shuffled[begin:end]
            plans.append(Plan(f"shards/{split}/{number:06d}.tar", split, part))
    return plans


def digest(rows: Sequence[dict[str, Any]], settings: str) -> str:
    """Changes whenever the bytes of the shard with these samples would."""
    known = json.dumps([VERSION, settings, rows], sort_keys=True)
    return hashlib.blake2b(known.encode(), digest_size=16).hexdigest()


def is_written(curate_dir: Path, planned: Plan, wanted: str) -> ShardInfo | None:
    """The shard if its statistics, which are written last, carry the ``digest`` that is wanted."""
    path = curate_dir / planned.path
    stats = stats_path(path)
    if not (stats.is_file() and path.is_file() and path.with_suffix(".parquet").is_file()):
        return None
    known = read_json(stats)
    if known is None or known.get("plan") != wanted or known["bytes"] != path.stat().st_size:
        return None
    return ShardInfo(planned.path, planned.split, known["count"], known["bytes"], known["sha256"])


def write_shard(
    curate_dir: Path,
    planned: Plan,
    rows: Sequence[dict[str, Any]],
    settings: str,
    extension: str,
    images: Iterable[bytes],
    progress: Callable[[], object] = lambda: None,
) -> ShardInfo:
    """Write one tar, its sidecar table and, last, its statistics.

    Args:
        curate_dir: the folder that ``planned.path`` is relative to.
        planned: the shard.
        rows: its samples, as ``digest`` takes them; the columns of the sidecar.
        settings: what else decides the bytes (image format, quality).
        extension: ``jpg`` or ``png``.
        images: the bytes to store, for each row in turn.
        progress: called after each sample.
    """
    path = curate_dir / planned.path
    # Before the tar changes: what is left of a killed writer must not pass for what was there before.
    stats_path(path).unlink(missing_ok=True)
    with atomic_write(path) as stream, HashingWriter(stream) as hashing:
        for row, image in zip(rows, images, strict=True):
            sample = Sample(row["key"], image, tuple(row["captions"]), _meta(row))
            hashing.write(*encode_sample(sample, extension))
            progress()
        hashing.write(END_OF_TAR)
    _write_sidecar(path.with_suffix(".parquet"), rows)
    size = path.stat().st_size
    info = ShardInfo(planned.path, planned.split, len(rows), size, hashing.hexdigest())
    _write_stats(path, info, digest(rows, settings))
    return info


def _write_sidecar(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """The samples' table, one row each, as img2dataset puts it beside a tar."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.Table.from_pylist(list(rows))
    captions = pa.array([row["captions"][0] for row in rows], pa.string())
    with atomic_write(path) as stream:
        pq.write_table(table.add_column(1, "caption", captions), stream)


def _write_stats(path: Path, info: ShardInfo, plan_digest: str) -> None:
    """img2dataset's ``_stats.json``, whose presence says that the shard is whole."""
    stats = {
        "count": info.samples,
        "successes": info.samples,
        "failed_to_download": 0,
        "failed_to_resize": 0,
        "status_dict": {"success": info.samples},
        "bytes": info.bytes,
        "sha256": info.sha256,
        "plan": plan_digest,
    }
    write_json(stats_path(path), stats)


def stats_path(tar: Path) -> Path:
    """Where a shard's statistics are."""
    return tar.with_name(f"{tar.stem}_stats.json")


def _meta(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if value is not None and value != ""}


def remove_stale(curate_dir: Path, plans: list[Plan]) -> None:
    """Delete shards and sidecars that no plan names: they belong to an earlier configuration."""
    names = {str(Path(planned.path).with_suffix("")) for planned in plans}
    for path in sorted((curate_dir / "shards").rglob("*.*")):
        stem = path.relative_to(curate_dir).with_suffix("").as_posix().removesuffix("_stats")
        if path.is_file() and stem not in names:
            path.unlink()
    remove_parts(curate_dir / "shards")
