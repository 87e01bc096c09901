"""The rows of a part: what is known of a pair, in the columns of the annotations."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from curate.annotate.cache import STORED, ImageRecord
from curate.readers.candidate import Candidate

_CLIP_MODEL = pa.dictionary(pa.int32(), pa.string())
_FIELDS = [
    ("key", pa.string()),
    ("caption_index", pa.int32()),
    ("has_caption", pa.bool_()),
    ("source", pa.string()),
    ("caption", pa.string()),
    ("location", pa.string()),
    ("version", pa.string()),
    ("width", pa.int32()),
    ("height", pa.int32()),
    ("format", pa.string()),
    ("bytes", pa.int64()),
    ("sha256", pa.string()),
    ("pixels", pa.string()),
    ("phash", pa.string()),
    ("phash_mirrored", pa.string()),
    ("error", pa.string()),
    ("clip_similarity", pa.float32()),
    ("clip_model", _CLIP_MODEL),
    ("image_embedding", pa.binary()),  # D float32, on the first row of an image
    ("text_embedding", pa.binary()),  # D float32
]

COLUMNS = tuple(name for name, _ in _FIELDS)


def row(
    candidate: Candidate, index: int, picture: ImageRecord, texts: Mapping[str, np.ndarray]
) -> dict[str, Any]:
    """The pair of an image and its caption number ``index``; an image without any has one row, too.

    Args:
        candidate: the image.
        index: which of its captions.
        picture: what is known of it.
        texts: the embeddings (D,) of the captions that were scored.
    """
    caption = candidate.captions[index] if candidate.captions else ""
    image = picture.embedding
    text = None if image is None else texts.get(caption)
    return {
        **candidate.columns,
        "key": candidate.key,
        "caption_index": index,
        "has_caption": bool(candidate.captions),
        "source": candidate.source,
        "caption": caption,
        "location": candidate.location,
        "version": candidate.version,
        **{name: getattr(picture, name) for name in STORED},
        **picture.values,
        "clip_similarity": None if image is None or text is None else cosine(image, text),
        "image_embedding": image.tobytes() if image is not None and index == 0 else None,
        "text_embedding": None if text is None else text.tobytes(),
    }


def table(
    found: Sequence[dict[str, Any]],
    clip_model: str,
    picture_columns: Sequence[str],
    of_captions: Mapping[str, list[Any]],
) -> pa.Table:
    """A part of N rows.

    Args:
        found: what ``row`` gave.
        clip_model: the CLIP that scored them.
        picture_columns: the optional measures among the rows' entries.
        of_captions: further measures, N values by column.
    """
    names = [name for name, _ in _FIELDS]
    own = {*names, *picture_columns, *of_captions}
    extra = sorted({name for entries in found for name in entries} - own)
    columns = {
        name: pa.array([entries.get(name) for entries in found], kind) for name, kind in _FIELDS
    }
    columns["clip_model"] = pa.array([clip_model] * len(found), _CLIP_MODEL)
    columns |= {
        name: pa.array([entries.get(name) for entries in found], pa.float32())
        for name in picture_columns
    }
    columns |= {name: pa.array(values) for name, values in of_captions.items()}
    columns |= {name: column([entries.get(name) for entries in found]) for name in extra}
    return pa.table(columns)


def column(values: list[Any]) -> pa.Array:
    """A source's own column; as text where its values are of several types."""
    kinds = {type(value) for value in values if value is not None}
    if len(kinds - {int, float}) + bool(kinds & {int, float}) > 1:
        return as_text(values)
    try:
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return as_text(values)


def as_text(values: Iterable[Any]) -> pa.Array:
    """Values of several types in Python's own words, whole numbers without a point.

    So those of all parts speak alike, whatever numbers an Arrow column made floats of.
    """
    return pa.array([None if value is None else _word(value) for value in values], pa.string())


def _word(value: Any) -> str:
    is_whole = isinstance(value, float) and value.is_integer()
    return f"{value:.0f}" if is_whole else str(value)


def cosine(image: np.ndarray, text: np.ndarray) -> float:
    """Dot product of two unit vectors in double precision, to six digits; more would say nothing."""
    return round(float(image.astype(np.float64) @ text.astype(np.float64)), 6)
