"""The annotation cache: image records and text embeddings of earlier parts, found by hash."""

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
from curate.annotate.parts import head_of, read_part
from curate.annotate.reread import is_marked
from curate.measures import registry
from curate.readers.candidate import Candidate


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """What was measured of an image; of an unreadable one little but the reason.

    Attributes:
        sha256: of the encoded bytes, "" where there are none.
        bytes: how many these are.
        width, height: in pixels, of the upright image.
        format: Pillow's name of it.
        pixels_sha256: see ``measures.phash``; "" for an image that was not decoded.
        phash, phash_mirrored: see ``measures.phash``; likewise.
        thumbnail: see ``measures.thumbnail``; likewise, no bytes.
        error: why the image cannot be read, "" where it can.
        values: the optional measures, by column.
        embedding: CLIP's, (D,) float32 of unit length; None where it was not computed.
    """

    sha256: str = ""
    bytes: int = 0
    width: int = 0
    height: int = 0
    format: str = ""
    pixels_sha256: str = ""
    phash: str = ""
    phash_mirrored: str = ""
    thumbnail: bytes = b""
    error: str = ""
    values: dict[str, Any] = field(default_factory=dict)
    embedding: np.ndarray | None = None


STORED = (
    *("sha256", "bytes", "width", "height", "format", "pixels_sha256"),
    *("phash", "phash_mirrored", "thumbnail", "error"),
)

_ROW = (1 << 32) - 1  # a place is (number of the part << 32) + row
_INDEXED = (
    *("key", "version", "sha256", "pixels_sha256"),
    *("caption", "caption_index", "clip_similarity"),
)


class AnnotationCache:
    """Finds measurements in parts; the index is in memory, the parts stay on the disk."""

    recognises_candidates = True

    def __init__(self, versions: Mapping[str, str]) -> None:
        """``versions`` of the optional measures: what another version measured is not used."""
        self._versions = versions
        self.used: set[Path] = set()  # the parts in which something was found
        self._parts: list[Path] = []
        self._candidates, self._contents, self._captions = HashIndex(), HashIndex(), HashIndex()

    def add_file(self, path: Path) -> None:
        """Index a part on the disk, see ``add``.

        Raises:
            UserError: the part is damaged.
        """
        self.add(path, read_part(path, _INDEXED))

    def add(self, path: Path, part: pa.Table) -> None:
        """Index ``part``, which is the content of ``path``. It takes precedence over earlier parts.

        The images of a part that is to be read again are found by their content alone.
        """
        first_rows = part["caption_index"].to_numpy() == 0
        recognised = first_rows & (self.recognises_candidates and not is_marked(path))
        decoded = first_rows & (part["pixels_sha256"].to_numpy() != "")
        scored = part["clip_similarity"].is_valid().to_numpy()
        for index, mask, columns in (
            (self._candidates, recognised, ["key", "version"]),
            (self._contents, decoded, ["sha256"]),
            (self._captions, scored, ["caption"]),
        ):
            rows = np.flatnonzero(mask)
            chosen = part.select(columns).take(pa.array(rows))
            values = [column.to_pylist() for column in chosen.columns]
            index.add(names_of(list(zip(*values, strict=True))), rows + (len(self._parts) << 32))
        self._parts.append(path)

    def of_candidate(self, candidate: Candidate) -> ImageRecord | None:
        """The record of an unchanged candidate, found without its bytes."""
        place = self._candidates.find(name_of(candidate.key, candidate.version))
        return self._record(place, key=candidate.key, version=candidate.version)

    def of_content(self, sha256: str) -> ImageRecord | None:
        """The record of the image with these bytes, whatever its key."""
        return self._record(self._contents.find(name_of(sha256)), sha256=sha256)

    def texts(self, captions: Iterable[str]) -> dict[str, np.ndarray]:
        """The embeddings (D,) of those captions that have been scored."""
        wanted: dict[int, list[int]] = defaultdict(list)
        for caption in captions:
            place = self._captions.find(name_of(caption))
            if place is not None:
                wanted[place >> 32].append(place & _ROW)
        found: dict[str, np.ndarray] = {}
        for number, rows in wanted.items():
            found |= self._texts_in(number, rows)
        return found

    def _texts_in(self, number: int, rows: list[int]) -> dict[str, np.ndarray]:
        """The captions at some rows of a part that were scored, with their embeddings."""
        columns = ["caption", "text_embedding"]
        table = read_part(self._parts[number], columns).take(pa.array(rows))
        self.used.add(self._parts[number])
        stored = zip(*(table[name].to_pylist() for name in columns), strict=True)
        return {caption: _vector(embedding) for caption, embedding in stored if embedding}

    def _record(self, place: int | None, **expected: str) -> ImageRecord | None:
        """The record at ``place``, if its row has the ``expected`` values: two hashes may be equal."""
        if place is None:
            return None
        path, row = self._parts[place >> 32], place & _ROW
        table = _whole_part(path, path.stat().st_mtime_ns)
        if any(table[name][row].as_py() != value for name, value in expected.items()):
            return None
        self.used.add(path)
        stored = {name: table[name][row].as_py() for name in STORED}
        versions = head_of(table.schema)["measures"]
        current = [
            name for name, version in versions.items() if self._versions.get(name) == version
        ]
        values = {column: table[column][row].as_py() for column in registry.image_columns(current)}
        embedding = table["image_embedding"][row].as_py()
        return ImageRecord(**stored, values=values, embedding=embedding and _vector(embedding))


@lru_cache(maxsize=4)
def _whole_part(path: Path, _mtime_ns: int) -> pa.Table:
    """A part as it is now: a file may be replaced by one with the same rows and more measures."""
    return read_part(path)


def _vector(stored: bytes) -> np.ndarray:
    return np.frombuffer(stored, np.float32)
