"""What earlier runs measured: an index over the parts, by candidate, by content and by caption."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from curate.annotate.hash_index import HashIndex, name_of, names_of
from curate.annotate.parts import _head, read_part
from curate.measures import registry
from curate.readers.sample import Candidate


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """What is known of an image: of an unreadable one little but the reason.

    Attributes:
        sha256: of the encoded bytes, "" where there are none.
        pixels: see ``images.pixels_sha256``; "" for one that no cheap rule let through.
        phash, phash_mirrored: see ``images.phashes``; likewise.
        error: why it cannot be read, "" where it can.
        values: the optional measures, by column.
        embedding: CLIP's, (D,) float32 of unit length; None where it was not computed.
    """

    sha256: str = ""
    bytes: int = 0
    width: int = 0
    height: int = 0
    format: str = ""
    pixels: str = ""
    phash: str = ""
    phash_mirrored: str = ""
    error: str = ""
    values: dict[str, Any] = field(default_factory=dict)
    embedding: np.ndarray | None = None


STORED = (
    *("sha256", "bytes", "width", "height", "format", "pixels"),
    *("phash", "phash_mirrored", "error"),
)

_ROW = (1 << 32) - 1
_COLUMNS = ("key", "version", "sha256", "pixels", "caption", "caption_index", "clip_similarity")


class AnnotationCache:
    """Finds measurements in the parts of an annotation folder; the parts stay on the disk."""

    def __init__(self, stamps: Mapping[str, str]) -> None:
        """``stamps`` say which optional measures count: those made by the same release of a model."""
        self._stamps = stamps
        self._parts: list[Path] = []
        self._candidates, self._contents, self._captions = HashIndex(), HashIndex(), HashIndex()

    def add_part(self, path: Path) -> None:
        """Index one part; what it has counts more than what was there before."""
        table = read_part(path, _COLUMNS)
        places = np.arange(len(table), dtype=np.int64) + (len(self._parts) << 32)
        scored = table["clip_similarity"].is_valid().to_numpy()
        rows = table.drop_columns(["clip_similarity"]).to_pandas()
        images = (rows["caption_index"] == 0).to_numpy()
        decoded = images & (rows["pixels"] != "").to_numpy()
        for index, chosen, columns in (
            (self._candidates, images, ["key", "version"]),
            (self._contents, decoded, ["sha256"]),
            (self._captions, scored, ["caption"]),
        ):
            names = names_of(list(rows.loc[chosen, columns].itertuples(index=False, name=None)))
            index.add(names, places[chosen])
        self._parts.append(path)

    def of_candidate(self, candidate: Candidate) -> ImageRecord | None:
        """The picture of an unchanged candidate, without a look at its bytes."""
        place = self._candidates.find(name_of(candidate.key, candidate.version))
        return self._picture(place, key=candidate.key, version=candidate.version)

    def of_content(self, sha256: str) -> ImageRecord | None:
        """The picture with these bytes, whatever its key."""
        return self._picture(self._contents.find(name_of(sha256)), sha256=sha256)

    def texts(self, captions: Iterable[str]) -> dict[str, np.ndarray]:
        """The embeddings (D,) of those captions that are known."""
        wanted: dict[int, list[int]] = defaultdict(list)
        for caption in captions:
            place = self._captions.find(name_of(caption))
            if place is not None:
                wanted[place >> 32].append(place & _ROW)
        found: dict[str, np.ndarray] = {}
        for part, rows in wanted.items():
            columns = ["caption", "text_embedding"]
            table = read_part(self._parts[part], columns).take(pa.array(rows))
            stored = zip(*(table[name].to_pylist() for name in columns), strict=True)
            found |= {caption: _vector(embedding) for caption, embedding in stored if embedding}
        return found

    def _picture(self, place: int | None, **expected: str) -> ImageRecord | None:
        """What stands at ``place``, if that is what was looked for."""
        if place is None:
            return None
        path, row = self._parts[place >> 32], place & _ROW
        table = _content(path, path.stat().st_mtime_ns)
        if any(table[name][row].as_py() != value for name, value in expected.items()):
            return None
        record = {name: table[name][row].as_py() for name in STORED}
        versions = _head(table.schema)["measures"]
        current = [name for name, version in versions.items() if self._stamps.get(name) == version]
        values = {column: table[column][row].as_py() for column in registry.image_columns(current)}
        embedding = table["image_embedding"][row].as_py()
        return ImageRecord(**record, values=values, embedding=embedding and _vector(embedding))


@lru_cache(maxsize=4)
def _content(path: Path, _mtime_ns: int) -> pa.Table:
    """A part as it is now: it may be written anew under its name, the same rows with more of them filled."""
    return read_part(path)


def _vector(stored: bytes) -> np.ndarray:
    return np.frombuffer(stored, np.float32)
