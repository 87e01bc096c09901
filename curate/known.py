"""What earlier runs measured: an index over the parts, by candidate, by content and by caption."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from curate.sample import Candidate


@dataclass(frozen=True, slots=True)
class Picture:
    """What is known of an image: of an unreadable one little but the reason.

    Attributes:
        sha256: of the encoded bytes, "" where there are none.
        pixels: see ``images.pixels_sha256``; "" for one that no cheap rule let through.
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
    error: str = ""
    values: dict[str, Any] = field(default_factory=dict)
    embedding: np.ndarray | None = None


STORED = ("sha256", "bytes", "width", "height", "format", "pixels", "phash", "error")

METADATA = b"darkroom"
_Place = tuple[Path, int]


class Known:
    """Finds measurements in the parts of an annotation folder; the parts stay on the disk."""

    def __init__(self) -> None:
        self._candidates: dict[bytes, _Place] = {}
        self._contents: dict[bytes, _Place] = {}
        self._captions: dict[bytes, _Place] = {}

    def add_part(self, path: Path) -> None:
        """Index one part; what is indexed already stays where it is."""
        columns = ["key", "version", "sha256", "caption", "caption_index", "error"]
        table = pq.read_table(path, columns=[*columns, "text_embedding"])
        has_text = table["text_embedding"].is_valid().to_pylist()
        for row, record in enumerate(table.select(columns).to_pylist()):
            place = path, row
            if record["caption_index"] == 0:
                self._candidates.setdefault(_name(record["key"], record["version"]), place)
                if record["sha256"] and not record["error"]:
                    self._contents.setdefault(_name(record["sha256"]), place)
            if has_text[row]:
                self._captions.setdefault(_name(record["caption"]), place)

    def of_candidate(self, candidate: Candidate) -> Picture | None:
        """The picture of an unchanged candidate, without a look at its bytes."""
        return self._picture(self._candidates.get(_name(candidate.key, candidate.version)))

    def of_content(self, sha256: str) -> Picture | None:
        """The picture with these bytes, whatever its key."""
        return self._picture(self._contents.get(_name(sha256)))

    def texts(self, captions: Iterable[str]) -> dict[str, np.ndarray]:
        """The embeddings (D,) of those captions that are known."""
        found = {}
        for caption in captions:
            if place := self._captions.get(_name(caption)):
                found[caption] = _vector(_content(place[0])["text_embedding"][place[1]].as_py())
        return found

    def _picture(self, place: _Place | None) -> Picture | None:
        if place is None:
            return None
        path, row = place
        table = _content(path)
        record = {name: table[name][row].as_py() for name in STORED}
        values = {name: table[name][row].as_py() for name in _head(table.schema)["values"]}
        embedding = table["image_embedding"][row].as_py()
        return Picture(**record, values=values, embedding=embedding and _vector(embedding))


def part_head(path: Path) -> dict[str, Any]:
    """What a part says about itself in its footer; empty for one that is missing or not ours."""
    if not path.is_file():
        return {}
    return _head(pq.read_schema(path))


def _head(schema: pa.Schema) -> dict[str, Any]:
    return json.loads((schema.metadata or {}).get(METADATA, b"{}"))


@lru_cache(maxsize=4)
def _content(path: Path) -> pa.Table:
    """A part as it was when first read; one of the same name holds the same rows, or more of them filled."""
    return pq.read_table(path)


def _vector(stored: bytes) -> np.ndarray:
    return np.frombuffer(stored, np.float32)


def _name(*parts: str) -> bytes:
    return hashlib.blake2b("\0".join(parts).encode(), digest_size=10).digest()
