"""Measures one part of the candidates: bytes, header, pixels, CLIP, in threads beside the model."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import pyarrow as pa

from curate.annotate import table as rows
from curate.annotate.cache import AnnotationCache, ImageRecord
from curate.measures import registry
from curate.measures.decode import CANNOT_BE_READ, UnreadableImage, decode, probe
from curate.measures.phash import phashes, pixels_sha256
from curate.readers.sample import Candidate

if TYPE_CHECKING:
    import torch

    from curate.annotate.spec import AnnotationSpec
    from curate.clip.scorer import ClipScorer

BATCH = 64  # images that are fetched and decoded ahead of the model
_Item = TypeVar("_Item")
_Started = TypeVar("_Started")


@dataclass
class _Seen:
    """An image on its way: its bytes until they are decoded, its pixels until they are encoded."""

    picture: ImageRecord
    data: bytes = b""
    pixels: torch.Tensor | None = None


class Measurer:
    """Turns candidates into rows; what ``known`` has is not measured again."""

    def __init__(
        self,
        known: AnnotationCache,
        request: AnnotationSpec,
        load: Callable[[str], bytes],
        load_scorer: Callable[[], ClipScorer],
        pool: ThreadPoolExecutor,
    ) -> None:
        self.known = known
        self.request = request
        self._load = load
        self._load_scorer = load_scorer
        self._pool = pool
        self._picture_measures = registry.image_measures(request.measures)
        self._caption_measures = registry.caption_measures(request.measures)
        self.value_columns = [name for m in self._picture_measures for name in m.columns]

    def measure(self, chunk: Sequence[Candidate], progress: Callable[[int], object]) -> pa.Table:
        """The part of ``chunk``: one row for each caption, and one for an image without any."""
        pairs = [(c, caption) for c in chunk for caption in c.captions]
        passes = self.request.gate.captions([caption for _, caption in pairs])
        hopeful = {c.key for (c, _), passing in zip(pairs, passes, strict=True) if passing}
        pictures = self._pictures(chunk, hopeful, progress)
        wanted = {
            caption
            for (c, caption), passing in zip(pairs, passes, strict=True)
            if passing and pictures[c.key].embedding is not None
        }
        texts = self._texts(sorted(wanted))
        pairs_of = [
            (c, index, caption) for c in chunk for index, caption in enumerate(c.captions or ("",))
        ]
        return rows.table(
            [rows.row(c, index, pictures[c.key], texts) for c, index, _ in pairs_of],
            self.request.clip_model,
            self.value_columns,
            self._of_captions([caption for _, _, caption in pairs_of]),
        )

    def _of_captions(self, captions: list[str]) -> dict[str, list[Any]]:
        """The measures of captions, by column."""
        found: dict[str, list[Any]] = {}
        for measure in self._caption_measures:
            found |= measure.measure(captions, lambda c: self._load_scorer().tokens(list(c)))
        return found

    def held_back(self, table: pa.Table) -> bool:
        """Whether the gate kept any pair of a part from being scored."""
        columns = table.select(["has_caption", "caption", "error", "clip_similarity"]).to_pandas()
        scorable = columns["has_caption"] & (columns["caption"] != "") & (columns["error"] == "")
        return bool((scorable & columns["clip_similarity"].isna()).any())

    def _pictures(
        self, chunk: Sequence[Candidate], hopeful: set[str], progress: Callable[[int], object]
    ) -> dict[str, ImageRecord]:
        """Each candidate's picture by key; those already known cost nothing."""
        found: dict[str, ImageRecord] = {}
        for candidate in chunk:
            picture = self.known.of_candidate(candidate)
            if picture and self._suffices(picture, candidate.key in hopeful):
                found[candidate.key] = picture
        progress(len(found))
        todo = [candidate for candidate in chunk if candidate.key not in found]
        for batch, seen in self._looked_at(todo, hopeful):
            self._encode(seen)
            found |= {c.key: s.picture for c, s in zip(batch, seen, strict=True)}
            progress(len(batch))
        return found

    def _suffices(self, picture: ImageRecord, is_hopeful: bool) -> bool:
        if picture.error:
            return not picture.error.startswith(CANNOT_BE_READ)  # the next run may be allowed to
        if picture.pixels:
            return picture.embedding is not None and set(self.value_columns) <= set(picture.values)
        size = (picture.width, picture.height, picture.bytes)
        return not (is_hopeful and self.request.gate.images([size])[0])

    def _encode(self, seen: Sequence[_Seen]) -> None:
        waiting = {id(s): s for s in seen if s.pixels is not None}.values()
        pixels = [s.pixels for s in waiting if s.pixels is not None]
        if not pixels:
            return
        embeddings = self._load_scorer().encode_pixels(pixels)
        for s, embedding in zip(waiting, embeddings, strict=True):
            s.picture, s.pixels = replace(s.picture, embedding=embedding), None

    def _looked_at(
        self, todo: Sequence[Candidate], hopeful: set[str]
    ) -> Iterator[tuple[Sequence[Candidate], list[_Seen]]]:
        """Batches in order; while the caller encodes one the next is decoded, the one after it fetched."""
        batches = [todo[start : start + BATCH] for start in range(0, len(todo), BATCH)]
        claimed: dict[str, _Seen] = {}

        def decode_batch(
            fetched: tuple[Sequence[Candidate], list[Future[_Seen]]],
        ) -> tuple[Sequence[Candidate], list[_Seen], list[Future[None]]]:
            batch, futures = fetched
            seen = [future.result() for future in futures]
            return batch, *self._start_decoding(batch, seen, hopeful, claimed)

        fetches = _one_ahead(batches, lambda b: (b, [self._pool.submit(self._fetch, c) for c in b]))
        for batch, seen, decoding in _one_ahead(fetches, decode_batch):
            for future in decoding:
                future.result()
            yield batch, seen

    def _fetch(self, candidate: Candidate) -> _Seen:
        """The bytes and what the header says, or what is known of these bytes."""
        try:
            data = self._load(candidate.location)
        except UnreadableImage as error:
            return _Seen(ImageRecord(error=error.reason))
        sha256 = hashlib.sha256(data).hexdigest()
        known = self.known.of_content(sha256)
        if known and self._suffices(known, is_hopeful=True):
            return _Seen(known)
        try:
            width, height, kind = probe(data)
        except UnreadableImage as error:
            return _Seen(ImageRecord(sha256, len(data), error=error.reason))
        embedding = known.embedding if known else None
        return _Seen(ImageRecord(sha256, len(data), width, height, kind, embedding=embedding), data)

    def _start_decoding(
        self,
        batch: Sequence[Candidate],
        seen: list[_Seen],
        hopeful: set[str],
        claimed: dict[str, _Seen],
    ) -> tuple[list[_Seen], list[Future[None]]]:
        """Decode what the gate lets through; of equal bytes the first stands for all."""
        sizes = [(s.picture.width, s.picture.height, s.picture.bytes) for s in seen]
        open_to = self.request.gate.images(sizes)
        futures: list[Future[None]] = []
        for number, (candidate, s) in enumerate(zip(batch, seen, strict=True)):
            if not s.data:
                continue
            if not (open_to[number] and candidate.key in hopeful):
                s.data = b""
                continue
            seen[number] = claimed.setdefault(s.picture.sha256, s)
            if seen[number] is s:
                self._load_scorer()  # here, not in several threads at once
                futures.append(self._pool.submit(self._look, s))
        return seen, futures

    def _look(self, seen: _Seen) -> None:
        """Decode, identify and measure; what CLIP has to encode is made ready for it."""
        picture, data, seen.data = seen.picture, seen.data, b""
        try:
            image = decode(data, self._load_scorer().image_px if self.request.draft else None)
        except UnreadableImage as error:
            seen.picture = ImageRecord(picture.sha256, picture.bytes, error=error.reason)
            return
        width, height = image.size
        if self.request.draft:
            width, height = picture.width, picture.height
        phash, mirrored = phashes(image)
        values: dict[str, Any] = {}
        for measure in self._picture_measures:
            values |= measure.measure(image)
        seen.picture = replace(
            picture,
            width=width,
            height=height,
            pixels=pixels_sha256(image),
            phash=phash,
            phash_mirrored=mirrored,
            values=values,
        )
        if picture.embedding is None:
            seen.pixels = self._load_scorer().preprocess(image)

    def _texts(self, captions: list[str]) -> dict[str, np.ndarray]:
        """The embedding of each caption; equal ones cost one, known ones none."""
        found = self.known.texts(captions)
        new = [caption for caption in captions if caption not in found]
        if new:
            found |= dict(zip(new, self._load_scorer().encode_texts(new), strict=True))
        return found


def _one_ahead(items: Iterable[_Item], start: Callable[[_Item], _Started]) -> Iterator[_Started]:
    """What ``start`` returns for each item, the next item being started before one is handed out."""
    waiting: list[_Started] = []
    for item in items:
        waiting.append(start(item))
        if len(waiting) > 1:
            yield waiting.pop(0)
    yield from waiting
