"""A stream without random access, spooled once into tars as it is read, and from then on read from them.

A pass takes the next samples from the stream only when it has used up those that are there, so that
``dataset.limit`` fetches no more than it needs, rounded up to a tar. A tar is there whole or not at all:
the same command goes on where an interrupted one stopped, and needs no network when all is there.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import tarfile
from collections.abc import Callable, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import IO, Any

from curate.measures.decode import probe
from curate.measures.unreadable import UnreadableImage
from curate.readers.candidate import Candidate
from curate.readers.config import HubConfig, ShardsConfig
from curate.readers.json_object import json_object
from curate.readers.shards import ShardReader, loader
from curate.readers.sidecars import IMAGE_SUFFIXES
from curate.readers.source import Source
from curate.readers.tally import Tally
from curate.run.cli import UserError
from curate.run.files import atomic_write, write_json

Raw = tuple[bytes | None, tuple[str, ...], dict[str, Any]]
"""Encoded image, if there is one, captions, columns."""

SAMPLES_PER_TAR = 500  # some 100 MB of photos: soon complete, and few enough files
_END = "end.json"
_STREAM = "stream.json"


def source(config: HubConfig, state: str, stream: Callable[[int], Iterator[Raw]]) -> Source:
    """The samples of ``stream(start)``, an iterator that begins at a position, by way of the spool.

    Args:
        config: names the stream.
        state: changes with what the stream gives; samples of different states are never mixed.
        stream: begins at the sample that it is given.

    Raises:
        UserError: the spool holds samples of another state, or, during a pass, the stream breaks off.
    """
    folder = Path(config.spool) / _name(config)
    _check_state(folder, state)
    notes: list[str] = []
    shards = ShardsConfig(name=config.name, reader="shards", path=str(folder))

    def candidates() -> Iterator[Candidate]:
        reader = ShardReader(shards, Tally(notes, [f"fetched samples are kept in {folder}"]))
        for path in _tars(folder, state, stream):
            yield from reader.candidates(path.stem, path)

    return Source(candidates, loader(lambda name: folder / f"{name}.tar"), notes=notes)


def _name(config: HubConfig) -> str:
    """The same for the same stream; another split or column goes to another folder."""
    known = [config.path, config.config, config.split, config.revision]
    known += [config.image_column, config.caption_column]
    digest = hashlib.blake2b(json.dumps(known).encode(), digest_size=6).hexdigest()
    return f"{re.sub(r'[^A-Za-z0-9]+', '-', config.path).strip('-')[-40:]}-{digest}"


def _check_state(folder: Path, state: str) -> None:
    """Refuse what was fetched before the stream changed, or before its state was noted."""
    if not any(folder.glob("*.tar")) and not (folder / _END).is_file():
        return
    try:
        known = json_object((folder / _STREAM).read_bytes()).get("state")
    except (FileNotFoundError, ValueError):
        known = None
    if known != state:
        raise UserError(
            f"{folder} holds samples of another revision of the data set, which has changed since; to "
            "fetch it anew remove that folder or type dataset.spool=FOLDER with another one"
        )


def _tars(folder: Path, state: str, stream: Callable[[int], Iterator[Raw]]) -> Iterator[Path]:
    """The tars that are there, and then new ones, until the stream has ended."""
    samples: Iterator[Raw] | None = None
    number = 0
    while True:
        path = folder / f"{number:05d}.tar"
        if not path.is_file():
            if (folder / _END).is_file():
                return
            start = number * SAMPLES_PER_TAR
            if samples is None:
                write_json(folder / _STREAM, {"state": state})
                samples = _fetched(stream, start)
            count = _write(path, islice(samples, SAMPLES_PER_TAR))
            if count < SAMPLES_PER_TAR:
                write_json(folder / _END, {"samples": start + count})
            if not count:
                return
        yield path
        number += 1


def _fetched(stream: Callable[[int], Iterator[Raw]], start: int) -> Iterator[Raw]:
    """The stream from ``start`` on; errors of whoever writes its samples down are not its own."""
    number = start
    try:
        for sample in stream(start):
            yield sample
            number += 1
    except OSError as error:
        kept = number - number % SAMPLES_PER_TAR
        raise UserError(
            f"the stream broke off after {kept} samples ({error}); the same command goes on from there"
        ) from error


def _write(path: Path, samples: Iterator[Raw]) -> int:
    """Write a tar, unless there is nothing to write; keys as img2dataset's: the tar's number first."""
    first = next(samples, None)
    if first is None:
        return 0
    count = 0
    with atomic_write(path) as stream, tarfile.open(fileobj=stream, mode="w") as tar:
        for image, captions, columns in chain([first], samples):
            key = f"{path.stem}{count:04d}"
            if image is not None:
                _add(tar, f"{key}.{_extension(image)}", image)
            record = {**columns, "captions": captions}
            _add(tar, f"{key}.json", json.dumps(record, sort_keys=True).encode())
            count += 1
    return count


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    content: IO[bytes] = io.BytesIO(data)
    tar.addfile(info, content)


def _extension(image: bytes) -> str:
    try:
        extension = probe(image)[2].lower()
    except UnreadableImage:  # it is kept, and counted where it is decoded
        return "jpg"
    return extension if f".{extension}" in IMAGE_SUFFIXES else "jpg"
