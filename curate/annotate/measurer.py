"""Measures the images and captions of one part: fetch, decode and encode, in threads beside the model."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import pyarrow as pa

from curate.annotate import companions
from curate.annotate.cache import AnnotationCache, ImageRecord
from curate.annotate.table import captions_of, part_table
from curate.clip.similarity import rounded
from curate.measures import registry
from curate.measures.decode import decode, probe
from curate.measures.phash import phashes, pixels_sha256
from curate.measures.thumbnail import thumbnail
from curate.measures.unreadable import CANNOT_BE_READ, UnreadableImage
from curate.readers.candidate import Candidate

if TYPE_CHECKING:
    from pathlib import Path

    import torch

    from curate.annotate.spec import AnnotationSpec
    from curate.annotate.store import SharedStore
    from curate.clip.scorer import ClipScorer

BATCH = 64  # images that are fetched and decoded ahead of the model
_Item = TypeVar("_Item")


@dataclass(frozen=True, slots=True)
class Fetched:
    """An image whose bytes were read.

    Attributes:
        record: its size and format, or all of it where nothing is left to measure.
        data: the encoded image; empty where nothing is left to measure.
        shared: what other runs have measured of the same bytes; used for an image that this run measures,
            so that its parts do not depend on what others measured.
    """

    record: ImageRecord
    data: bytes = b""
    shared: ImageRecord | None = None


@dataclass(frozen=True, slots=True)
class Decoded:
    """An image whose pixels were measured.

    Attributes:
        record: all of it but the embedding, or the reason why it cannot be decoded.
        pixels: for CLIP, 3 x H x W; None where the embedding is known, or there are none.
    """

    record: ImageRecord
    pixels: torch.Tensor | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """Images some of which are being decoded.

    Attributes:
        records: of the images that are not decoded, by key.
        sha256_of: the hash of the other images' bytes, by key; equal ones are decoded once.
        decoding: the images whose bytes are in no earlier batch.
    """

    records: dict[str, ImageRecord]
    sha256_of: dict[str, str]
    decoding: list[Future[Decoded]]


class Measurer:
    """Measures parts for a spec; what the caches hold is not measured again."""

    def __init__(
        self,
        cache: AnnotationCache,
        spec: AnnotationSpec,
        load: Callable[[str], bytes],
        load_scorer: Callable[[], ClipScorer],
        pool: ThreadPoolExecutor,
        shared: SharedStore | None = None,
    ) -> None:
        """A measurer.

        Args:
            cache: of the parts that were written so far.
            spec: what to measure.
            load: the bytes at a candidate's location; called in the threads of ``pool``.
            load_scorer: the CLIP; called often, so it should remember.
            pool: the threads that fetch and decode.
            shared: what other runs have measured.
        """
        self._cache, self._shared = cache, shared
        self._spec = spec
        self._load = load
        self._load_scorer = load_scorer
        self._pool = pool
        self._image_measures = registry.image_measures(spec.measures)
        self._file_measures = registry.file_measures(spec.measures)
        self._image_columns = registry.image_columns(spec.measures)
        self._file_columns = {column for each in self._file_measures for column in each.columns}
        self._caption_measures = registry.caption_measures(spec.measures)

    def measure(self, chunk: Sequence[Candidate], progress: Callable[[int], object]) -> pa.Table:
        """The part of ``chunk``, see ``table.part_table``.

        Args:
            chunk: the images.
            progress: called with the number of images that were measured or found since the last call.
        """
        captions = list(dict.fromkeys(caption for c in chunk for caption in c.captions))
        passes = self._spec.prefilter.passes_captions(captions)
        passing = {caption for caption, passed in zip(captions, passes, strict=True) if passed}
        records = self._records(chunk, passing, progress)
        scored = [c for c in chunk if records[c.key].embedding is not None]
        wanted = passing.intersection(caption for c in scored for caption in c.captions)
        own = [records[c.key] for c in chunk]
        if any(c.companions for c in chunk):
            beside = companions.columns(chunk, own, self._load, self._pool)
            chunk = [
                replace(c, columns={**c.columns, **more})
                for c, more in zip(chunk, beside, strict=True)
            ]
        return part_table(
            chunk,
            own,
            self._texts(sorted(wanted)),
            self._spec.clip_model,
            self._image_columns,
            self._caption_columns([caption for c in chunk for caption in captions_of(c)]),
            self._spec.stored,
        )

    def keep(self, path: Path, part: pa.Table) -> None:
        """Use ``part`` from now on, which was written to ``path``; other runs do as well."""
        self._cache.add(path, part)
        if self._shared:
            self._shared.keep(path, part)

    def _records(
        self, chunk: Sequence[Candidate], passing: set[str], progress: Callable[[int], object]
    ) -> dict[str, ImageRecord]:
        """The record of each candidate by key; ``passing`` are the captions that pass the prefilter."""
        scorable = {c.key for c in chunk if not passing.isdisjoint(c.captions)}
        records = self._cached(chunk, scorable)
        progress(len(records))
        left = [candidate for candidate in chunk if candidate.key not in records]
        for measured in self._measured(left, scorable):
            records |= measured
            progress(len(measured))
        return records

    def _cached(self, chunk: Sequence[Candidate], scorable: set[str]) -> dict[str, ImageRecord]:
        """The records in the cache, by key, that hold all that the spec asks of an image.

        ``scorable`` are the keys of the images with a caption that passes the prefilter.
        """
        found = [(candidate.key, self._cache.of_candidate(candidate)) for candidate in chunk]
        cached = {key: record for key, record in found if record}
        passes = dict(zip(cached, self._passes(list(cached.values())), strict=True))

        def is_enough(key: str, record: ImageRecord) -> bool:
            if record.error:
                return not record.error.startswith(CANNOT_BE_READ)  # it may be readable by now
            if record.pixels_sha256:
                return self._is_complete(record)
            return not (passes[key] and key in scorable)

        return {key: record for key, record in cached.items() if is_enough(key, record)}

    def _is_complete(self, record: ImageRecord, but_for: Set[str] = frozenset()) -> bool:
        """Whether an image was decoded, encoded and measured as the spec asks, ``but_for`` some columns."""
        is_scored = record.pixels_sha256 != "" and record.embedding is not None
        return is_scored and record.values.keys() >= {*self._image_columns} - but_for

    def _passes(self, records: Sequence[ImageRecord]) -> np.ndarray:
        """Mask (N,): True where the image itself passes the prefilter."""
        sizes = [(record.width, record.height, record.bytes) for record in records]
        return self._spec.prefilter.passes_images(sizes)

    def _measured(
        self, candidates: Sequence[Candidate], scorable: set[str]
    ) -> Iterator[dict[str, ImageRecord]]:
        """Records by key, a batch at a time.

        While one batch is encoded the next is decoded and the one after it fetched. ``map`` does not
        keep a batch that it has passed on, so bytes and pixels are freed as soon as they were used.
        """
        batches = [candidates[start : start + BATCH] for start in range(0, len(candidates), BATCH)]
        started: set[str] = set()
        encoded: dict[str, ImageRecord] = {}
        fetching = _one_ahead(map(self._start_fetching, batches))
        start_decoding = partial(self._start_decoding, scorable, started)
        decoding = _one_ahead(map(start_decoding, batches, fetching))
        return map(partial(self._finish, encoded), _filled(decoding))

    def _start_fetching(self, batch: Sequence[Candidate]) -> list[Future[Fetched]]:
        return [self._pool.submit(self._fetch, candidate) for candidate in batch]

    def _fetch(self, candidate: Candidate) -> Fetched:
        """Read an image and its header; what the caches have of the same bytes is used."""
        try:
            data = self._load(candidate.location)
        except UnreadableImage as error:
            return Fetched(ImageRecord(error=error.reason))
        sha256 = hashlib.sha256(data).hexdigest()
        cached = self._with_texts(self._cache.of_content(sha256), data)
        if cached and self._is_complete(cached):
            return Fetched(cached)
        shared = self._with_texts(self._shared.of_content(sha256), data) if self._shared else None
        try:
            width, height, kind = probe(data)
        except UnreadableImage as error:
            return Fetched(ImageRecord(sha256, len(data), error=error.reason))
        embedding = cached.embedding if cached else None
        record = ImageRecord(sha256, len(data), width, height, kind, embedding=embedding)
        return Fetched(record, data, shared)

    def _with_texts(self, record: ImageRecord | None, data: bytes) -> ImageRecord | None:
        """A record with what measures of files say, where it lacks nothing else: it is not decoded for them."""
        if record is None or not self._is_complete(record, but_for=self._file_columns):
            return record
        texts: dict[str, Any] = {}
        for measure in self._file_measures:
            if not record.values.keys() >= {*measure.columns}:
                texts |= measure.measure(data)
        return replace(record, values=record.values | texts)

    def _start_decoding(
        self,
        scorable: set[str],
        started: set[str],
        batch: Sequence[Candidate],
        fetching: Sequence[Future[Fetched]],
    ) -> Batch:
        """Start to decode the images that pass the prefilter.

        Args:
            scorable: the keys of the images with a caption that passes the prefilter.
            started: hashes of the bytes that are decoded already; new ones are added.
            batch: the images.
            fetching: their bytes.
        """
        fetched = [future.result() for future in fetching]
        passes = self._passes([image.record for image in fetched])
        records: dict[str, ImageRecord] = {}
        sha256_of: dict[str, str] = {}
        decoding: list[Future[Decoded]] = []
        for candidate, image, passed in zip(batch, fetched, passes, strict=True):
            if not (image.data and passed and candidate.key in scorable):
                records[candidate.key] = image.record
                continue
            if self._shared and image.shared and self._is_complete(image.shared):
                records[candidate.key] = image.shared
                self._shared.images += 1
                continue
            if image.shared and image.record.embedding is None:
                embedding = image.shared.embedding
                image = replace(image, record=replace(image.record, embedding=embedding))
            sha256 = sha256_of[candidate.key] = image.record.sha256
            if sha256 not in started:
                started.add(sha256)
                self._load_scorer()  # here, not in several threads at once
                decoding.append(self._pool.submit(self._decode, image))
        return Batch(records, sha256_of, decoding)

    def _decode(self, image: Fetched) -> Decoded:
        """Decode, hash and measure an image, and preprocess it for CLIP."""
        record = image.record
        try:
            rgb = decode(image.data, self._load_scorer().image_px if self._spec.draft else None)
        except UnreadableImage as error:
            return Decoded(ImageRecord(record.sha256, record.bytes, error=error.reason))
        # The pixels count, not the header; but a draft is smaller than its image.
        width, height = (record.width, record.height) if self._spec.draft else rgb.size
        phash, mirrored = phashes(rgb)
        values: dict[str, Any] = {}
        for measure in self._image_measures:
            values |= measure.measure(rgb)
        for measure in self._file_measures:
            values |= measure.measure(image.data)
        measured = replace(
            record,
            width=width,
            height=height,
            pixels_sha256=pixels_sha256(rgb),
            phash=phash,
            phash_mirrored=mirrored,
            thumbnail=thumbnail(rgb),
            values=values,
        )
        if record.embedding is not None:
            return Decoded(measured)
        return Decoded(measured, self._load_scorer().preprocess(rgb))

    def _finish(self, encoded: dict[str, ImageRecord], batch: Batch) -> dict[str, ImageRecord]:
        """The records of a batch by key; those of decoded images are added to ``encoded`` by sha256."""
        records = self._encode([future.result() for future in batch.decoding])
        encoded |= {record.sha256: record for record in records}
        return batch.records | {key: encoded[sha256] for key, sha256 in batch.sha256_of.items()}

    def _encode(self, decoded: Sequence[Decoded]) -> list[ImageRecord]:
        """The records with CLIP's embeddings."""
        pixels = [image.pixels for image in decoded if image.pixels is not None]
        embeddings = iter(self._load_scorer().encode_pixels(pixels) if pixels else ())
        return [
            image.record
            if image.pixels is None
            else replace(image.record, embedding=rounded(next(embeddings)))
            for image in decoded
        ]

    def _texts(self, captions: list[str]) -> dict[str, np.ndarray]:
        """The embedding (D,) of each caption; those in the cache are not encoded again."""
        found = self._cache.texts(captions)
        if self._shared:
            others = self._shared.texts(caption for caption in captions if caption not in found)
            self._shared.texts_found += len(others)
            found |= others
        new = [caption for caption in captions if caption not in found]
        if new:
            found |= dict(zip(new, rounded(self._load_scorer().encode_texts(new)), strict=True))
        return found

    def _caption_columns(self, captions: Sequence[str]) -> dict[str, list[Any]]:
        """The optional measures of N captions: N values by column."""
        columns: dict[str, list[Any]] = {}
        for measure in self._caption_measures:
            columns |= measure.measure(captions, self._count_tokens)
        return columns

    def _count_tokens(self, captions: Sequence[str]) -> list[int]:
        return self._load_scorer().tokens(list(captions))


def _filled(batches: Iterator[Batch]) -> Iterator[Batch]:
    """Join batches of which little is decoded, until ``BATCH`` images are: the model fills up its own batches."""
    waiting = Batch({}, {}, [])
    for batch in batches:
        waiting = Batch(
            waiting.records | batch.records,
            waiting.sha256_of | batch.sha256_of,
            [*waiting.decoding, *batch.decoding],
        )
        if len(waiting.decoding) >= BATCH:
            yield waiting
            waiting = Batch({}, {}, [])
    yield waiting


def _one_ahead(items: Iterable[_Item]) -> Iterator[_Item]:
    """The same items, one behind: each is yielded after the next one has started."""
    waiting: list[_Item] = []
    for item in items:
        waiting.append(item)
        if len(waiting) > 1:
            yield waiting.pop(0)
    yield from waiting
