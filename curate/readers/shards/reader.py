"""WebDataset shards of any origin: img2dataset, the tools of CC12M and DataComp, or this program.

How a sample is read:

- Images: each member with an image suffix (``files.IMAGE_SUFFIXES``) and no second dot is a candidate;
  if there is none, each one with a second dot. ``a.jpg`` beside ``a.mask.png`` is one picture, and
  ``a.0.jpg`` beside ``a.1.jpg`` are two. Several candidates of one sample have the extension in their
  keys, and share the captions except their own (``a.0.txt``). Images left out are noted. ``a.control.png`` and
  ``a.mask.png`` beside ``a.jpg`` are its companions, which go with it. Without an image
  suffix, the only member that is a picture by its bytes, if there is a text.
- Texts: an image's own (``a.0.txt`` or ``a.0.jpg.txt`` of ``a.0.jpg``), then the sample's (``a.txt``); whatever
  their middle parts, the only text of a kind belongs to the only image. Texts that serve no image are noted.
- Captions: the first of ``.txt`` and ``.caption`` that says something, by its first line that is not empty, or by all
  lines if the JSON has the same; then every caption of a JSON list ``captions``. Without such a text, the JSON's first
  field of ``columns.CAPTION_NAMES``.
- Columns: the other JSON fields, except captions that repeat the text member's, and ``.cls``.
- Nothing else is opened, except for the signature of a picture; above all no pickles.

A pair that img2dataset's parquet beside the tar lists and the tar lacks is a candidate without an image:
its ``error_message`` says why, and it is counted as a missing file.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from curate.measures.unreadable import MISSING_FILE, UnreadableImage
from curate.readers.candidate import (
    MAX_KEY_CHARACTERS,
    Candidate,
    clean_caption,
    first_line,
    key_of,
)
from curate.readers.columns import CAPTION_NAMES, captions_in, flat
from curate.readers.companions import Companion
from curate.readers.counted_notes import CountedNotes
from curate.readers.files import TEXT_KINDS, version_of
from curate.readers.shards import ShardsConfig
from curate.readers.shards.paths import expand, list_beside
from curate.readers.shards.plain_tars import PlainTars
from curate.readers.shards.sample import Sample, Texts
from curate.readers.source import Source
from curate.readers.tars import BrokenTar, UnchangedTars, iter_samples, read_range
from curate.readers.text_encoding import TextDecoder
from curate.run.remote_files import RemotePath
from curate.run.schema import UserError

_MOST_SEARCHED = 200_000  # text members, for those that are not UTF-8: half a minute
_IS_KEY = re.compile(rf"[A-Za-z0-9_-]{{1,{MAX_KEY_CHARACTERS}}}")  # as key_of makes them


def read(config: ShardsConfig) -> Source:
    """Find the shards and read the first block of each.

    Raises:
        FileNotFoundError: nothing matches ``dataset.path``.
        UserError: a file is not a tar; says which, and what it is.
    """
    shards, found_notes = expand(config.path)
    if any(isinstance(path, RemotePath) for path in shards.values()):
        from curate.readers.remote_tars import RemoteTar

        spool = Path(config.spool)
        shards |= {
            name: RemoteTar.of(path, spool)
            for name, path in shards.items()
            if isinstance(path, RemotePath)
        }
    plain = PlainTars(shards, Path(config.spool))
    notes = [*found_notes, *filter(None, [plain.note])]
    fixed = tuple(notes)

    def texts() -> Iterator[bytes]:
        found = (text for name in shards for text in _texts_of(plain.path_of(name)))
        return islice(found, _MOST_SEARCHED)

    decoder = TextDecoder(config.encoding, texts)

    tars = UnchangedTars()

    def candidates() -> Iterator[Candidate]:
        reader = ShardReader(config, CountedNotes(notes, fixed), decoder)
        for name, path in shards.items():
            tars.note(plain.path_of(name))
            yield from reader.candidates(name, path, plain.path_of(name), plain.is_cut(name))

    return Source(candidates, loader(plain.path_of, tars.read), notes=notes)


def loader(
    path_of: Callable[[str], Path],
    read: Callable[[Path, int, int], bytes] = read_range,
) -> Callable[[str], bytes]:
    """A source's ``load`` for locations ``NAME.tar:OFFSET:SIZE``; ``path_of`` gives the path of shard NAME."""

    return partial(_load_member, path_of, read)


def _load_member(
    path_of: Callable[[str], Path], read: Callable[[Path, int, int], bytes], location: str
) -> bytes:
    if not location:
        raise UnreadableImage(MISSING_FILE)
    file, offset, size = location.rsplit(":", 2)
    return read(path_of(file.removesuffix(".tar")), int(offset), int(size))


class ShardReader:
    """Reads the candidates of shards, and notes what was damaged or left out."""

    def __init__(self, config: ShardsConfig, notes: CountedNotes, decoder: TextDecoder) -> None:
        """``decoder`` of the text members of all shards."""
        self._config = config
        self._notes = notes
        self._decoder = decoder

    def candidates(
        self, name: str, path: Path, plain: Path | None = None, is_cut: bool = False
    ) -> Iterator[Candidate]:
        """Those of the tar at ``path``, then those that only the parquet beside it lists.

        Args:
            name: of the shard.
            path: of the shard as it was given.
            plain: its plain copy, if it is compressed.
            is_cut: whether the copy ends where the compression is damaged.

        Raises:
            UserError: the members of a sample are not adjacent.
        """
        times: Counter[str] = Counter()
        version, tar = version_of(path), plain or path
        with tar.open("rb") as stream:
            try:
                for key, members in iter_samples(tar):
                    times[key] += 1
                    unique = self._unique_in_tar(name, key, times[key])
                    sample = Sample(
                        f"{name}: {unique}", members, stream, self._decoder, self._notes
                    )
                    yield from self._of_sample(name, unique, sample, version)
                if is_cut:
                    raise BrokenTar("its compression is damaged")
            except BrokenTar as error:
                self._notes.add(
                    "damaged shards, read up to the damage",
                    f"{path} after {times.total()} samples, {error}",
                )
        if not times:
            self._notes.add("shards without a sample", str(path))
        yield from self._without_image(name, list_beside(path), times)

    def _unique_in_tar(self, name: str, key: str, time: int) -> str:
        """``c..2`` for the second sample with key ``c``; no member's name gives such a key."""
        if time == 1:
            return key
        self._notes.add("samples with the key of an earlier one in the same tar", f"{name}: {key}")
        return f"{key}..{time}"

    def _of_sample(self, name: str, key: str, sample: Sample, version: str) -> Iterator[Candidate]:
        beside = tuple(
            self._companion(name, kind, sample.members[member], version)
            for kind, member in sorted(sample.companions.items())
        )
        for image in sample.images or [None]:
            captions, columns = self._content(f"{name}: {key}", sample.texts(image))
            offset, size = (0, 0) if image is None else sample.members[image]
            full = f"{key}.{image}" if len(sample.images) > 1 else key
            yield Candidate(
                key=self._key(name, full),
                captions=captions,
                source=self._config.name,
                location="" if image is None else f"{name}.tar:{offset}:{size}",
                version="" if image is None else f"{version}-{offset}",
                columns=columns,
                companions=beside,
            )
        sample.note_unused()

    @staticmethod
    def _companion(name: str, kind: str, place: tuple[int, int], version: str) -> Companion:
        offset, size = place
        return Companion(kind, f"{name}.tar:{offset}:{size}", f"{version}-{offset}")

    def _key(self, name: str, key: str) -> str:
        """The shard's name and the key, because WebDataset's keys are unique in one tar only.

        Keys of img2dataset stay: they start with the shard's number, and are unique over the set.
        """
        if self._config.unique_keys:
            return key if _IS_KEY.fullmatch(key) else key_of(key)
        numbered = name.isdigit() and len(name) >= 5 and key.isdigit() and key.startswith(name)
        return key_of(key if numbered else f"{name}/{key}")

    def _content(self, place: str, texts: Texts) -> tuple[tuple[str, ...], dict[str, Any]]:
        """The captions, and the other fields of the JSON as columns."""
        record, text = texts.record, texts.caption
        first = (
            "" if text is None or self._config.caption_field else self._line(place, text, record)
        )
        if first:
            listed = record.get("captions")
            captions = captions_in([first, *listed] if isinstance(listed, list) else first)
            used = _repeating(record, captions)
        else:
            field = self._caption_field(record)
            captions = captions_in(record.get(field))
            used = {field} if captions or record.get(field) == [] else set()
            if text is not None and not captions and not self._config.caption_field:
                captions = ("",)
        columns = flat(record, used)
        return captions, columns | ({} if texts.cls is None else {"cls": texts.cls})

    def _line(self, place: str, text: str, record: Mapping[str, Any]) -> str:
        """The first line of a text member that is not empty; all lines if the JSON has the same caption."""
        line, has_more = first_line(text)
        whole = clean_caption(text)
        if has_more and any(whole in captions_in(record.get(name)) for name in CAPTION_NAMES):
            return whole
        if has_more:
            self._notes.add("text members of several lines, of which only the first is used", place)
        return line

    def _caption_field(self, record: Mapping[str, Any]) -> str:
        """``dataset.caption_field``, a list ``captions``, or the first known field with a caption; "" for none."""
        if self._config.caption_field:
            return self._config.caption_field
        first = ("captions",) if isinstance(record.get("captions"), list) else ()
        return next(
            (name for name in (*first, *CAPTION_NAMES) if captions_in(record.get(name))), ""
        )

    def _without_image(self, name: str, table: Path, keys: Collection[str]) -> Iterator[Candidate]:
        """The rows of img2dataset's parquet whose keys the tar lacks, whether or not it keeps their folder."""
        present = {*keys, *(key.rpartition("/")[2] for key in keys)}
        for row in self._rows(table):
            if row["key"] in present:
                continue
            captions, columns = self._content("", Texts(record=row))
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
            file = pq.ParquetFile(table.open("rb") if isinstance(table, RemotePath) else table)
            if "key" in file.schema_arrow.names:
                for batch in file.iter_batches(batch_size=1000):
                    yield from (row | {"key": str(row["key"])} for row in batch.to_pylist())
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            self._notes.add("parquet files beside shards that cannot be read", f"{table} ({error})")


def _repeating(record: Mapping[str, Any], captions: Collection[str]) -> set[str]:
    """The caption fields that only repeat ``captions``: img2dataset writes its text into the JSON, too."""
    fields = {name: set(captions_in(record.get(name))) for name in CAPTION_NAMES}
    return {name for name, texts in fields.items() if texts and texts <= set(captions)}


def _texts_of(tar: Path) -> Iterator[bytes]:
    """All text members of a tar, up to any damage or fault, which the pass over its samples reports."""
    with tar.open("rb") as stream, suppress(BrokenTar, UserError):
        for _, members in iter_samples(tar):
            for extension, (offset, size) in members.items():
                if extension.rpartition(".")[2] in TEXT_KINDS:
                    stream.seek(offset)
                    yield stream.read(size)
