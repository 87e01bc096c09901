"""WebDataset shards of any origin: img2dataset, the tools of CC12M and DataComp, or this program.

How a sample is read:

- Images: each member with an image suffix (``files.IMAGE_SUFFIXES``) and no second dot is a candidate;
  if there is none, each one with a second dot. ``a.jpg`` beside ``a.mask.png`` is one picture, and
  ``a.0.jpg`` beside ``a.1.jpg`` are two. Several candidates of one sample have the extension in their
  keys, and share the captions except their own (``a.0.txt``). Images left out are noted.
- Captions: ``.txt`` or ``.caption``, then every caption of a JSON list ``captions``. Without a text
  member, the JSON's first field of ``columns.CAPTION_NAMES``.
- Columns: the other JSON fields, except captions that repeat the text member's, and ``.cls``.
- Nothing else is opened; above all no pickles.

A pair that img2dataset's parquet beside the tar lists and the tar lacks is a candidate without an image:
its ``error_message`` says why, and it is counted as a missing file.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from curate.measures.unreadable import MISSING_FILE, UnreadableImage
from curate.readers.candidate import MAX_KEY_CHARACTERS, Candidate, key_of
from curate.readers.columns import CAPTION_NAMES, captions_in, flat
from curate.readers.counted_notes import CountedNotes
from curate.readers.files import IMAGE_SUFFIXES, version_of
from curate.readers.json_object import json_object
from curate.readers.shards import ShardsConfig
from curate.readers.shards.paths import expand
from curate.readers.source import Source
from curate.readers.tars import BrokenTar, Members, check_tar, iter_samples, read_range

_CAPTION_MEMBERS = ("txt", "caption")
_IS_KEY = re.compile(rf"[A-Za-z0-9_-]{{1,{MAX_KEY_CHARACTERS}}}")  # as key_of makes them


def read(config: ShardsConfig) -> Source:
    """Find the shards and read the first block of each.

    Raises:
        FileNotFoundError: nothing matches ``dataset.path``.
        UserError: a file is not a tar; says which, and what it is.
    """
    shards, found_notes = expand(config.path)
    for path in shards.values():
        check_tar(path)
    notes = list(found_notes)

    def candidates() -> Iterator[Candidate]:
        reader = ShardReader(config, CountedNotes(notes, found_notes))
        for name, path in shards.items():
            yield from reader.candidates(name, path)

    return Source(candidates, loader(shards.__getitem__), notes=notes)


def loader(path_of: Callable[[str], Path]) -> Callable[[str], bytes]:
    """A source's ``load`` for locations ``NAME.tar:OFFSET:SIZE``; ``path_of`` gives the path of shard NAME."""

    def load(location: str) -> bytes:
        if not location:
            raise UnreadableImage(MISSING_FILE)
        file, offset, size = location.rsplit(":", 2)
        return read_range(path_of(file.removesuffix(".tar")), int(offset), int(size))

    return load


class ShardReader:
    """Reads the candidates of shards, and notes what was damaged or left out."""

    def __init__(self, config: ShardsConfig, notes: CountedNotes) -> None:
        self._config = config
        self._notes = notes

    def candidates(self, name: str, path: Path) -> Iterator[Candidate]:
        """Those of the tar at ``path``, then those that only the parquet beside it lists.

        Raises:
            UserError: the members of a sample are not adjacent.
        """
        times: Counter[str] = Counter()
        version = version_of(path)
        with path.open("rb") as stream:
            try:
                for key, members in iter_samples(path):
                    times[key] += 1
                    unique = self._unique_in_tar(name, key, times[key])
                    yield from self._of_sample(name, unique, members, stream, version)
            except BrokenTar as error:
                self._notes.add(
                    "damaged shards, read up to the damage",
                    f"{path} after {times.total()} samples, {error}",
                )
        if not times:
            self._notes.add("shards without a sample", str(path))
        yield from self._without_image(name, path.with_suffix(".parquet"), times)

    def _unique_in_tar(self, name: str, key: str, time: int) -> str:
        """``c..2`` for the second sample with key ``c``; no member's name gives such a key."""
        if time == 1:
            return key
        self._notes.add("samples with the key of an earlier one in the same tar", f"{name}: {key}")
        return f"{key}..{time}"

    def _of_sample(
        self, name: str, key: str, members: Members, stream: IO[bytes], version: str
    ) -> Iterator[Candidate]:
        images = [extension for extension in members if _is_image(extension)]
        chosen = [extension for extension in images if "." not in extension] or images
        if len(chosen) < len(images):
            left = [extension for extension in images if extension not in chosen]
            self._notes.add(
                "further images of a sample, left out", f"{name}: {key}.{left[0]}", len(left)
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
        """The shard's name and the key, because WebDataset's keys are unique in one tar only.

        Keys of img2dataset stay: they start with the shard's number, and are unique over the set.
        """
        if self._config.unique_keys:
            return key if _IS_KEY.fullmatch(key) else key_of(key)
        numbered = name.isdigit() and len(name) >= 5 and key.isdigit() and key.startswith(name)
        return key_of(key if numbered else f"{name}/{key}")

    def _texts(self, place: str, image: str, members: Members, stream: IO[bytes]) -> dict[str, Any]:
        """The text members by extension, the image's own before the sample's; JSON parsed."""
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
            self._notes.add("JSON members that are not an object, left out", place)
            return {}

    def _content(self, texts: Mapping[str, Any]) -> tuple[tuple[str, ...], dict[str, Any]]:
        """The captions, and the other fields of the JSON as columns."""
        record = texts.get("json", {})
        first = [texts[kind] for kind in _CAPTION_MEMBERS if kind in texts][:1]
        if self._config.caption_field or not first:
            field = self._caption_field(record)
            captions = captions_in(record.get(field))
            used = {field} if captions else set()
        else:
            listed = record.get("captions")
            captions = captions_in([*first, *listed] if isinstance(listed, list) else first)
            used = _repeating(record, captions)
        columns = flat(record, used)
        return captions, columns | ({"cls": texts["cls"].strip()} if "cls" in texts else {})

    def _caption_field(self, record: Mapping[str, Any]) -> str:
        """``dataset.caption_field``, a list ``captions``, or the first known field with a caption; "" for none."""
        if self._config.caption_field:
            return self._config.caption_field
        first = ("captions",) if isinstance(record.get("captions"), list) else ()
        return next(
            (name for name in (*first, *CAPTION_NAMES) if captions_in(record.get(name))), ""
        )

    def _without_image(self, name: str, table: Path, keys: Collection[str]) -> Iterator[Candidate]:
        """The rows of img2dataset's parquet whose keys the tar lacks."""
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
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            file = pq.ParquetFile(table)
            if "key" in file.schema_arrow.names:
                for batch in file.iter_batches(batch_size=1000):
                    yield from (row | {"key": str(row["key"])} for row in batch.to_pylist())
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            self._notes.add("parquet files beside shards that cannot be read", f"{table} ({error})")


def _repeating(record: Mapping[str, Any], captions: Collection[str]) -> set[str]:
    """The caption fields that only repeat ``captions``: img2dataset writes its text into the JSON, too."""
    fields = {name: set(captions_in(record.get(name))) for name in CAPTION_NAMES}
    return {name for name, texts in fields.items() if texts and texts <= set(captions)}


def _text(data: bytes) -> str:
    return data.decode("utf-8-sig", "replace")


def _is_image(extension: str) -> bool:
    return f".{extension.rpartition('.')[2]}" in IMAGE_SUFFIXES
