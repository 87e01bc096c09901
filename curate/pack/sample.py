"""Read and encode a sample of a shard: its image, json and txt under one key."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from curate.run.companions import KINDS, extension_of
from curate.run.finished import to_mend
from curate.run.provenance import curate_command
from curate.run.tar import header

# Formats that are stored unchanged, by Pillow's names; MPO is a JPEG followed by more images.
EXTENSIONS = {"JPEG": "jpg", "MPO": "jpg", "PNG": "png"}


IMAGE_EXTENSIONS = tuple(dict.fromkeys(EXTENSIONS.values()))
_ADDED = ("__url__", "__local_path__")  # keys that webdataset adds to a sample


@dataclass(frozen=True, slots=True)
class Sample:
    """One image of a shard with its kept captions, the most similar first, and the pictures beside it by kind."""

    key: str
    image: bytes
    captions: tuple[str, ...]
    meta: dict[str, Any]
    companions: Mapping[str, bytes] = field(default_factory=dict)

    @property
    def caption(self) -> str:
        """The caption with the highest similarity."""
        return self.captions[0]


def read_shard(path: Path) -> Iterator[Sample]:
    """The samples of one tar in order, read by webdataset.

    Raises:
        ValueError: the tar is damaged, or the members of a sample are not adjacent or incomplete;
            the message names the shard.
    """
    seen: set[str] = set()
    for files in _members_by_key(path):
        key = files.pop("__key__")
        if key in seen:
            raise ValueError(f"{path}: the members of sample {key!r} are not adjacent")
        seen.add(key)
        yield _sample(path, key, files)


def _members_by_key(path: Path) -> Iterator[dict[str, Any]]:
    """For each key its files by suffix, and the key as ``__key__``.

    The file is opened here, because webdataset would interpret braces and ``pipe:`` in its path.
    """
    from webdataset.tariterators import group_by_keys, tar_file_expander

    run_dir = _run_dir(path)
    with path.open("rb") as stream:
        try:
            for files in group_by_keys(tar_file_expander([{"url": str(path), "stream": stream}])):
                yield {name: files[name] for name in files if name not in _ADDED}
        except tarfile.ReadError as error:
            raise ValueError(
                f"{path} is damaged ({error.args[0]}); "
                + to_mend(run_dir, f"delete it and type: {curate_command(run_dir)}")
            ) from error


def _run_dir(shard: Path) -> Path:
    """Of ``runs/demo/curate/shards/train/000000.tar`` => ``runs/demo``."""
    return shard.parents[:4][-1]


def _sample(path: Path, key: str, files: dict[str, bytes]) -> Sample:
    image = next((files[name] for name in IMAGE_EXTENSIONS if name in files), None)
    if image is None or not {"json", "txt"} <= files.keys():
        raise ValueError(f"{path}: sample {key!r} has only {', '.join(files)}")
    try:
        meta = json.loads(files["json"])
    except ValueError as error:
        raise ValueError(f"{path}: the json of sample {key!r} is damaged: {error}") from error
    if not isinstance(meta, dict) or not isinstance(meta.get("captions"), list):
        raise ValueError(f"{path}: the json of sample {key!r} holds no list of captions")
    beside = {kind: files[name] for kind in KINDS if (name := extension_of(kind)) in files}
    return Sample(key, image, tuple(meta["captions"]), meta, beside)


def encode_sample(sample: Sample, extension: str) -> list[bytes]:
    """The USTAR bytes of a sample in parts: image, companions, json and txt in a row, without times and owners."""
    meta = json.dumps(sample.meta, ensure_ascii=False, sort_keys=True, allow_nan=False)
    members = (
        (extension, sample.image),
        *((extension_of(kind), sample.companions[kind]) for kind in sorted(sample.companions)),
        ("json", meta.encode()),
        ("txt", sample.caption.encode()),
    )
    parts: list[bytes] = []
    for suffix, content in members:
        padding = bytes(-len(content) % tarfile.BLOCKSIZE)
        parts += [header(f"{sample.key}.{suffix}", len(content)), content, padding]
    return parts
