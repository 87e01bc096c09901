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

from curate.annotate.hash_index import HashIndex
from curate.annotate.known import PLACE_BITS, Known, candidate_found_by, found_by
from curate.annotate.parts import head_of, read_part
from curate.annotate.reread import is_marked
from curate.annotate.stored_embeddings import stored_in
from curate.clip.similarity import STORED as STORED_AS
from curate.measures import registry
from curate.readers.candidate import Candidate
from curate.run.progress import Bar
from curate.run.schema import UserError


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
        embedding: CLIP's, (D,) float16, see ``clip.similarity``; None where it was not computed or not stored.
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

_ROW = (1 << PLACE_BITS) - 1
_REMEMBERED = 1_000_000  # entries of what a process has measured itself, 16 bytes each


class AnnotationCache:
    """Finds measurements in parts that are known, and in those that were added; the parts stay on the disk.

    A part that is gone or damaged when it is read counts as unknown, the latter with a line: only the footers of
    known parts were read so far, and another process may delete some.

    Attributes:
        used: the parts in which something was found.
    """

    recognises_candidates = True

    def __init__(self, versions: Mapping[str, str], known: Known | None = None) -> None:
        """A cache.

        Args:
            versions: of the optional measures: what another version measured is not used.
            known: what was measured before.
        """
        known = known or Known()
        self._versions = versions
        self.used: set[Path] = set()
        self._parts = list(known.parts)
        self._lost: set[int] = set()  # the numbers of parts that were gone or damaged
        self._candidates, self._contents, self._captions = (
            HashIndex(known.opened(kind), _REMEMBERED)
            for kind in ("candidates", "contents", "captions")
        )

    def add(self, path: Path, part: pa.Table) -> None:
        """Index ``part``, which is the content of ``path``. It takes precedence over earlier parts.

        The images of a part that is to be read again are found by their content alone.
        """
        first_rows = part["caption_index"].to_numpy() == 0
        recognised = first_rows & (self.recognises_candidates and not is_marked(path))
        decoded = first_rows & (part["pixels_sha256"].to_numpy() != "")
        scored = part["clip_similarity"].is_valid().to_numpy()
        stored = stored_in(head_of(part.schema))
        if not stored.is_everything:
            # What lacks its embedding must not hide an earlier part that has it.
            indices = part["caption_index"].to_numpy().astype(np.int64)
            with_image, with_text = stored.keeps(part["key"].to_pylist(), indices)
            recognised &= with_image | ~decoded
            decoded &= with_image
            scored &= with_text
        for index, mask, columns, name in (
            (self._candidates, recognised, ["key", "version"], candidate_found_by),
            (self._contents, decoded, ["sha256"], found_by),
            (self._captions, scored, ["caption"], found_by),
        ):
            rows = np.flatnonzero(mask)
            chosen = part.select(columns).take(pa.array(rows))
            values = [column.to_pylist() for column in chosen.columns]
            names = np.fromiter(map(name, *values), np.uint64, len(rows))
            index.add(names, rows + (len(self._parts) << PLACE_BITS))
        self._parts.append(path)

    def of_candidate(self, candidate: Candidate) -> ImageRecord | None:
        """The record of an unchanged candidate, found without its bytes."""
        place = self._candidates.find(candidate_found_by(candidate.key, candidate.version))
        return self._record(place, key=candidate.key, version=candidate.version)

    def of_content(self, sha256: str) -> ImageRecord | None:
        """The record of the image with these bytes, whatever its key."""
        return self._record(self._contents.find(found_by(sha256)), sha256=sha256)

    def texts(self, captions: Iterable[str]) -> dict[str, np.ndarray]:
        """The embeddings (D,) float16 of those captions that have been scored, where they are stored."""
        wanted: dict[int, list[int]] = defaultdict(list)
        for caption in captions:
            place = self._captions.find(found_by(caption))
            if place is not None:
                wanted[place >> PLACE_BITS].append(place & _ROW)
        found: dict[str, np.ndarray] = {}
        for number, rows in wanted.items():
            found |= self._texts_in(number, rows)
        return found

    def _texts_in(self, number: int, rows: list[int]) -> dict[str, np.ndarray]:
        """The captions at some rows of a part that were scored, with their embeddings; none of a part that is lost."""
        columns = ["caption", "text_embedding"]
        if number in self._lost:
            return {}
        try:
            table = read_part(self._parts[number], columns).take(pa.array(rows))
        except (FileNotFoundError, UserError) as error:
            self._lose(number, error)
            return {}
        self.used.add(self._parts[number])
        stored = zip(*(table[name].to_pylist() for name in columns), strict=True)
        return {caption: _vector(embedding) for caption, embedding in stored if embedding}

    def _record(self, place: int | None, **expected: str) -> ImageRecord | None:
        """The record at ``place``, if its row has the ``expected`` values: two hashes may be equal."""
        if place is None or place >> PLACE_BITS in self._lost:
            return None
        path, row = self._parts[place >> PLACE_BITS], place & _ROW
        try:
            table = _whole_part(path, path.stat().st_mtime_ns)
        except (FileNotFoundError, UserError) as error:
            self._lose(place >> PLACE_BITS, error)
            return None
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

    def _lose(self, number: int, error: Exception) -> None:
        """Look nothing up in a part any more."""
        if number not in self._lost and isinstance(error, UserError):
            self._say_damaged(self._parts[number])
        self._lost.add(number)

    def _say_damaged(self, path: Path) -> None:
        say_damaged(path)


def say_damaged(path: Path) -> None:
    """Say that a run's own part, which stays, is damaged."""
    Bar.write(f"annotations/{path.name} is damaged; what it held is measured again")


@lru_cache(maxsize=4)
def _whole_part(path: Path, _mtime_ns: int) -> pa.Table:
    """A part as it is now: a file may be replaced by one with the same rows and more measures."""
    return read_part(path)


def _vector(stored: bytes) -> np.ndarray:
    return np.frombuffer(stored, STORED_AS)
