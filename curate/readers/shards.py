"""WebDataset shards, whoever wrote them: img2dataset, CC12M's and DataComp's tools, or this program.

What of a sample counts:

- every image member (any of ``sidecars.IMAGE_SUFFIXES``) without a second dot is a candidate, and where
  there is none those with one are: ``a.jpg`` beside ``a.mask.png`` is one picture, ``a.0.jpg`` beside
  ``a.1.jpg`` are two. Several candidates of a sample carry their extension in the key and share the
  captions, but for those with their own middle part (``a.0.txt``). Images passed over are counted;
- captions are ``.txt`` or ``.caption``, and every one of a JSON list ``captions``; without a text member
  the JSON's first field of ``columns.CAPTION_NAMES``;
- the other JSON fields, but for captions that repeat the text member's, and ``.cls``, are columns. Nothing else is opened, least of all pickles.

A pair that img2dataset's table beside the tar lists, and the tar does not hold, is a candidate without
an image: its ``error_message`` says why, and it is counted as a missing file.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from curate.measures.unreadable import MISSING_FILE, UnreadableImage
from curate.readers import shard_files
from curate.readers.candidate import MAX_KEY_CHARACTERS, Candidate, key_of
from curate.readers.columns import CAPTION_NAMES, captions_in, flat
from curate.readers.config import ShardsConfig
from curate.readers.files import version_of
from curate.readers.json_object import json_object
from curate.readers.sidecars import IMAGE_SUFFIXES
from curate.readers.source import Source
from curate.readers.tally import Tally
from curate.readers.tars import BrokenTar, Members, check_tar, iter_samples, read_range

_CAPTION_MEMBERS = ("txt", "caption")
_IS_KEY = re.compile(rf"[A-Za-z0-9_-]{{1,{MAX_KEY_CHARACTERS}}}")  # as key_of makes them


def read(config: ShardsConfig) -> Source:
    """Find the shards and look at each one's first block.

    Raises:
        FileNotFoundError: nothing is there under ``dataset.path``.
        UserError: a file is no tar; says which and what it is.
    """
    shards, lasting = shard_files.find(config.path)
    for path in shards.values():
        check_tar(path)
    notes = list(lasting)

    def candidates() -> Iterator[Candidate]:
        reader = ShardReader(config, Tally(notes, lasting))
        for name, path in shards.items():
            yield from reader.candidates(name, path)

    return Source(candidates, loader(shards.__getitem__), notes=notes)


def loader(path_of: Callable[[str], Path]) -> Callable[[str], bytes]:
    """A source's ``load`` for locations ``NAME.tar:OFFSET:SIZE``, given where the shard NAME is."""

    def load(location: str) -> bytes:
        if not location:
            raise UnreadableImage(MISSING_FILE)
        file, offset, size = location.rsplit(":", 2)
        return read_range(path_of(file.removesuffix(".tar")), int(offset), int(size))

    return load


class ShardReader:
    """The candidates of one shard after another; what was met on the way goes into the tally."""

    def __init__(self, config: ShardsConfig, tally: Tally) -> None:
        self._config = config
        self._tally = tally

    def candidates(self, name: str, path: Path) -> Iterator[Candidate]:
        """Those of the tar at ``path``, then those that only the table beside it knows.

        Raises:
            UserError: the members of a sample are not adjacent.
        """
        times: Counter[str] = Counter()
        version = version_of(path)
        with path.open("rb") as stream:
            try:
                for key, members in iter_samples(path):
                    times[key] += 1
                    told_apart = self._told_apart(name, key, times[key])
                    yield from self._of_sample(name, told_apart, members, stream, version)
            except BrokenTar as error:
                self._tally.add(
                    "broken shards, read up to the damage",
                    f"{path} after {times.total()} samples, {error}",
                )
        if not times:
            self._tally.add("shards without a sample", str(path))
        yield from self._without_image(name, path.with_suffix(".parquet"), times)

    def _told_apart(self, name: str, key: str, time: int) -> str:
        """The second sample of ``c`` is ``c..2``, which no member's name makes a key."""
        if time == 1:
            return key
        self._tally.add("samples whose key an earlier one of the tar has", f"{name}: {key}")
        return f"{key}..{time}"

    def _of_sample(
        self, name: str, key: str, members: Members, stream: IO[bytes], version: str
    ) -> Iterator[Candidate]:
        images = [extension for extension in members if _is_image(extension)]
        chosen = [extension for extension in images if "." not in extension] or images
        if len(chosen) < len(images):
            left = [extension for extension in images if extension not in chosen]
            self._tally.add(
                "images beside a sample's own, left out", f"{name}: {key}.{left[0]}", len(left)
            )
        for extension in chosen or [""]:
            texts = self._texts(f"{name}: {key}", extension, members, stream)
            captions, columns = self._content(texts)
            offset, size = members.get(extension, (0, 0))
            full = f"{key}.{extension}" if len(chosen) > 1 else key
            yield Candidate(
                key=self._key(name, full),
                captions=captions,
                source=self._config.name,
                location=f"{name}.tar:{offset}:{size}" if extension else "",
                version=f"{version}-{offset}" if extension else "",
                columns=columns,
            )

    def _key(self, name: str, key: str) -> str:
        """Keys need to be unique in a tar only, so the shard's name stands before them.

        But for img2dataset's, which are unique over the set: the shard's number and five digits or so.
        """
        if self._config.unique_keys:
            return key if _IS_KEY.fullmatch(key) else key_of(key)
        numbered = name.isdigit() and len(name) >= 5 and key.isdigit() and key.startswith(name)
        return key_of(key if numbered else f"{name}/{key}")

    def _texts(self, place: str, image: str, members: Members, stream: IO[bytes]) -> dict[str, Any]:
        """Text members by extension, an image's own before those of the sample; JSON parsed."""
        own = image.rpartition(".")[0]
        texts: dict[str, Any] = {}
        for kind in (*_CAPTION_MEMBERS, "cls", "json"):
            extension = next((e for e in (f"{own}.{kind}", kind) if e in members), None)
            if extension is None:
                continue
            offset, size = members[extension]
            stream.seek(offset)
            data = stream.read(size)
            texts[kind] = self._parsed(place, data) if kind == "json" else _text(data)
        return texts

    def _parsed(self, place: str, data: bytes) -> dict[str, Any]:
        try:
            return json_object(data)
        except ValueError:
            self._tally.add("JSON members that hold no object, passed over", place)
            return {}

    def _content(self, texts: Mapping[str, Any]) -> tuple[tuple[str, ...], dict[str, Any]]:
        """The captions, and as columns the fields of the JSON that they did not come from."""
        record = texts.get("json", {})
        first = [texts[kind] for kind in _CAPTION_MEMBERS if kind in texts][:1]
        if self._config.caption_field or not first:
            field = self._caption_field(record)
            captions = captions_in(record.get(field))
            served = {field} if captions else set()
        else:
            listed = record.get("captions")
            captions = captions_in([*first, *listed] if isinstance(listed, list) else first)
            served = _repeating(record, captions)
        columns = flat(record, served)
        return captions, columns | ({"cls": texts["cls"].strip()} if "cls" in texts else {})

    def _caption_field(self, record: Mapping[str, Any]) -> str:
        """The field that was asked for, a list ``captions``, or the first that has a value; "" for none."""
        if self._config.caption_field:
            return self._config.caption_field
        first = ("captions",) if isinstance(record.get("captions"), list) else ()
        return next(
            (name for name in (*first, *CAPTION_NAMES) if captions_in(record.get(name))), ""
        )

    def _without_image(self, name: str, table: Path, keys: Collection[str]) -> Iterator[Candidate]:
        """The rows of img2dataset's table whose key the tar does not hold."""
        for row in self._rows(table):
            if row["key"] in keys:
                continue
            captions, columns = self._content({"json": row})
            yield Candidate(
                key=self._key(name, row["key"]),
                captions=captions,
                source=self._config.name,
                location="",
                version="",
                columns=columns,
            )

    def _rows(self, table: Path) -> Iterator[dict[str, Any]]:
        if not table.is_file():
            return
        try:
            file = pq.ParquetFile(table)
            if "key" in file.schema_arrow.names:
                for batch in file.iter_batches(batch_size=1000):
                    yield from (row | {"key": str(row["key"])} for row in batch.to_pylist())
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            self._tally.add("tables beside shards that cannot be read", f"{table} ({error})")


def _repeating(record: Mapping[str, Any], captions: Collection[str]) -> set[str]:
    """The caption fields that say nothing new: img2dataset writes its text member into the JSON too."""
    told = {name: set(captions_in(record.get(name))) for name in CAPTION_NAMES}
    return {name for name, texts in told.items() if texts and texts <= set(captions)}


def _text(data: bytes) -> str:
    return data.decode("utf-8-sig", "replace")


def _is_image(extension: str) -> bool:
    return f".{extension.rpartition('.')[2]}" in IMAGE_SUFFIXES
