"""Lay out one part as an Arrow table: candidates, image records, embeddings and similarities."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from curate.annotate.cache import STORED, ImageRecord
from curate.annotate.stored_embeddings import Stored
from curate.clip.similarity import cosines
from curate.measures import registry
from curate.readers.candidate import Candidate

_TYPES = {
    "key": pa.string(),
    "caption_index": pa.int32(),
    "has_caption": pa.bool_(),
    "source": pa.string(),
    "caption": pa.string(),
    "location": pa.string(),
    "version": pa.string(),
    "width": pa.int32(),
    "height": pa.int32(),
    "format": pa.string(),
    "bytes": pa.int64(),
    "sha256": pa.string(),
    "pixels_sha256": pa.string(),
    "phash": pa.string(),
    "phash_mirrored": pa.string(),
    "thumbnail": pa.binary(),
    "error": pa.string(),
    "clip_similarity": pa.float32(),
    "clip_model": pa.dictionary(pa.int32(), pa.string()),
    "image_embedding": pa.binary(),  # D float16, on the first row of an image, see ``stored_embeddings``
    "text_embedding": pa.binary(),  # D float16
}
COLUMNS = tuple(_TYPES)


def captions_of(candidate: Candidate) -> tuple[str, ...]:
    """The captions of a candidate's rows: an image without captions has one row, with an empty one."""
    return candidate.captions or ("",)


def part_table(
    candidates: Sequence[Candidate],
    records: Sequence[ImageRecord],
    texts: Mapping[str, np.ndarray],
    clip_model: str,
    image_columns: Sequence[str],
    caption_columns: Mapping[str, Sequence[Any]],
    stored: Stored,
) -> pa.Table:
    """A part of N rows: one for each of ``captions_of`` each candidate.

    Args:
        candidates: the images.
        records: the record of each candidate.
        texts: the embeddings (D,) of the captions that were scored.
        clip_model: the CLIP that scored them.
        image_columns: the optional measures of images, names of ``ImageRecord.values``.
        caption_columns: the optional measures of captions, N values by column.
        stored: which embeddings to leave out once the similarities are computed.
    """
    of_images = _image_columns(candidates, records, image_columns)
    image_of_row = np.repeat(np.arange(len(candidates)), [len(captions_of(c)) for c in candidates])
    columns = {name: values.take(pa.array(image_of_row)) for name, values in of_images.items()}
    columns |= _pair_columns(candidates, records, texts, stored)
    columns["clip_model"] = pa.array([clip_model] * len(image_of_row), _TYPES["clip_model"])
    columns |= {name: pa.array(values) for name, values in caption_columns.items()}
    measured = (*COLUMNS, *image_columns, *caption_columns)
    offered = sorted(columns.keys() - set(measured))
    return pa.table({name: columns[name] for name in (*measured, *offered)})


def _image_columns(
    candidates: Sequence[Candidate], records: Sequence[ImageRecord], measures: Sequence[str]
) -> dict[str, pa.Array]:
    """What the rows of an image have in common, one value for each image."""
    offered = {name for candidate in candidates for name in candidate.columns}
    columns = {name: source_column([c.columns.get(name) for c in candidates]) for name in offered}
    for name in ("key", "source", "location", "version"):
        columns[name] = pa.array([getattr(c, name) for c in candidates], _TYPES[name])
    columns["has_caption"] = pa.array([bool(candidate.captions) for candidate in candidates])
    for name in STORED:
        columns[name] = pa.array([getattr(record, name) for record in records], _TYPES[name])
    for name in measures:
        kind = pa.string() if name in registry.TEXTS else pa.float32()
        columns[name] = pa.array([record.values.get(name) for record in records], kind)
    return columns


def _pair_columns(
    candidates: Sequence[Candidate],
    records: Sequence[ImageRecord],
    texts: Mapping[str, np.ndarray],
    stored: Stored,
) -> dict[str, pa.Array]:
    """What belongs to an image and one of its captions, one value for each row."""
    indices, captions, keys = [], [], []
    of_images: list[np.ndarray | None] = []
    of_texts: list[np.ndarray | None] = []
    for candidate, record in zip(candidates, records, strict=True):
        for index, caption in enumerate(captions_of(candidate)):
            keys.append(candidate.key)
            indices.append(index)
            captions.append(caption)
            of_images.append(record.embedding)
            of_texts.append(None if record.embedding is None else texts.get(caption))
    keeps_image, keeps_text = stored.keeps(keys, np.array(indices, np.int64))
    keeps_image &= np.array(indices) == 0
    columns = {
        "caption_index": indices,
        "caption": captions,
        "clip_similarity": _similarities(of_images, of_texts),
        "image_embedding": _bytes(of_images, keeps_image),
        "text_embedding": _bytes(of_texts, keeps_text),
    }
    return {name: pa.array(values, _TYPES[name]) for name, values in columns.items()}


def _similarities(
    images: Sequence[np.ndarray | None], texts: Sequence[np.ndarray | None]
) -> list[float | None]:
    """Of each pair with two embeddings."""
    found: list[float | None] = [None] * len(images)
    pairs = [
        (row, image, text)
        for row, (image, text) in enumerate(zip(images, texts, strict=True))
        if image is not None and text is not None
    ]
    if pairs:
        rows, of_images, of_texts = zip(*pairs, strict=True)
        for row, value in zip(rows, cosines(np.stack(of_images), np.stack(of_texts)), strict=True):
            found[row] = float(value)
    return found


def _bytes(vectors: Sequence[np.ndarray | None], keeps: np.ndarray) -> list[bytes | None]:
    return [
        vector.tobytes() if keep and vector is not None else None
        for vector, keep in zip(vectors, keeps, strict=True)
    ]


def source_column(values: list[Any]) -> pa.Array:
    """A column of the source's; as text where its values are of several types."""
    kinds = {type(value) for value in values if value is not None}
    if len(kinds - {int, float}) + bool(kinds & {int, float}) > 1:
        return as_text(values)
    try:
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return as_text(values)


def as_text(values: Iterable[Any]) -> pa.Array:
    """Values of several types as Python prints them, whole numbers without a decimal point.

    So they read the same in all parts, also where Arrow turned whole numbers into floats.
    """
    return pa.array([None if value is None else _word(value) for value in values], pa.string())


def _word(value: Any) -> str:
    is_whole = isinstance(value, float) and value.is_integer()
    return f"{value:.0f}" if is_whole else str(value)
