"""A cache for a stream: its samples are written once to tars below ``dataset.spool`` and read from there.

A pass reads the tars that exist, and then continues the stream, a tar at a time: ``dataset.limit``
downloads no more than it needs, rounded up to a tar. A tar is renamed when complete, so the same command
resumes where an interrupted one stopped, and needs no network once the stream has ended.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import tarfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import IO, Any

from curate.measures.unreadable import UnreadableImage
from curate.readers.candidate import Candidate
from curate.readers.counted_notes import CountedNotes
from curate.readers.files import IMAGE_SUFFIXES
from curate.readers.hub import HubConfig
from curate.readers.json_object import json_object
from curate.readers.shards import ShardsConfig
from curate.readers.shards.reader import ShardReader, loader
from curate.readers.source import Source
from curate.readers.text_encoding import TextDecoder
from curate.run.files import atomic_write, write_json
from curate.run.schema import UserError

Row = tuple[bytes | None, tuple[str, ...], dict[str, Any]]
"""Encoded image or None, captions, columns."""

SAMPLES_PER_TAR = 500  # about 100 MB of photos: soon complete, and not too many files
_END = "end.json"
_STREAM = "stream.json"


def source(
    config: HubConfig,
    state: str,
    stream: Callable[[int], Iterator[Row]],
    remarks: Sequence[str] = (),
) -> Source:
    """The samples of a stream, through the cache.

    Args:
        config: names the stream and the cache's folder.
        state: changes when the stream's content does; samples of different states are never mixed.
        stream: starts the stream at the sample with this number.
        remarks: notes on the stream.

    Raises:
        UserError: the cache holds samples of another state, or, during a pass, the stream breaks off.
    """
    folder = Path(config.spool) / _name(config)
    _check_state(folder, state)
    notes: list[str] = []
    decoder = TextDecoder(None, lambda: ())  # all texts are our own JSON
    shards = ShardsConfig(
        name=config.name, reader="shards", path=str(folder), caption_field="captions"
    )

    def candidates() -> Iterator[Candidate]:
        fixed = [*remarks, f"downloaded samples are kept in {folder}"]
        reader = ShardReader(shards, CountedNotes(notes, fixed), decoder)
        for path in _tars(folder, state, stream):
            yield from reader.candidates(path.stem, path)

    return Source(candidates, loader(partial(_tar, folder)), notes=notes)


def _tar(folder: Path, name: str) -> Path:
    return folder / f"{name}.tar"


def _name(config: HubConfig) -> str:
    """The folder's name, one for each data set, configuration, split, revision and pair of columns."""
    stream = [config.path, config.config, config.split, config.revision]
    stream += [config.image_column, config.caption_column]
    digest = hashlib.blake2b(json.dumps(stream).encode(), digest_size=6).hexdigest()
    return f"{re.sub(r'[^A-Za-z0-9]+', '-', config.path).strip('-')[-40:]}-{digest}"


def _check_state(folder: Path, state: str) -> None:
    """Refuse a cache whose samples are of another state, or of an unknown one."""
    if not any(folder.glob("*.tar")) and not (folder / _END).is_file():
        return
    try:
        cached = json_object((folder / _STREAM).read_bytes()).get("state")
    except (FileNotFoundError, ValueError):
        cached = None
    if cached != state:
        raise UserError(
            f"{folder} holds samples of another revision of the data set, which has changed since; to "
            "download it again remove that folder, or type dataset.spool=FOLDER with another one"
        )


def _tars(folder: Path, state: str, stream: Callable[[int], Iterator[Row]]) -> Iterator[Path]:
    """The existing tars, then new ones until the stream ends."""
    samples: Iterator[Row] | None = None
    number = 0
    while True:
        path = folder / f"{number:05d}.tar"
        if not path.is_file():
            if (folder / _END).is_file():
                return
            start = number * SAMPLES_PER_TAR
            if samples is None:
                write_json(folder / _STREAM, {"state": state})
                samples = _resumable(stream, start)
            count = _write(path, islice(samples, SAMPLES_PER_TAR))
            if count < SAMPLES_PER_TAR:
                write_json(folder / _END, {"samples": start + count})
            if not count:
                return
        yield path
        number += 1


def _resumable(stream: Callable[[int], Iterator[Row]], start: int) -> Iterator[Row]:
    """The stream from ``start`` on; its errors, and only its, say that the same command resumes."""
    number = start
    try:
        for sample in stream(start):
            yield sample
            number += 1
    except OSError as error:
        complete = number - number % SAMPLES_PER_TAR
        raise UserError(
            f"the stream broke off after {complete} samples ({error}); the same command resumes there"
        ) from error


def _write(path: Path, samples: Iterator[Row]) -> int:
    """Write a tar unless there are no samples; returns their number.

    Keys begin with the tar's number, as img2dataset's do.
    """
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
    from curate.measures.decode import probe  # imports Pillow

    try:
        extension = probe(image)[2].lower()
    except UnreadableImage:  # kept; it is counted when it is decoded
        return "jpg"
    return extension if f".{extension}" in IMAGE_SUFFIXES else "jpg"
