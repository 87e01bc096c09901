"""A digest of each shard's rows, computed by column, that changes whenever its bytes would."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pyarrow as pa


def digests(
    columns: Iterable[tuple[str, pa.Array]], edges: Sequence[int], settings: str
) -> list[str]:
    """One hex digest for each shard.

    It covers the names of the columns, the kinds of their values (integers of any width are one kind,
    as are floats), which values are missing, and the values bit by bit. Its definition is this module's
    own, so that no release of a library makes shards look outdated.

    Args:
        columns: (name, values [N]), each of all shards' rows, shard after shard.
        edges: [S + 1]; shard s has rows ``edges[s]`` up to ``edges[s + 1]``.
        settings: what the bytes depend on beside the rows.
    """
    found = [hashlib.blake2b(settings.encode(), digest_size=16) for _ in edges[1:]]
    for name, values in columns:
        kind, parts = _canonical(values)
        title = json.dumps([name, kind]).encode()
        for digest, first, end in zip(found, edges, edges[1:], strict=False):
            digest.update(title)
            for part in parts:
                digest.update(part.slice(first, end))
    return [digest.hexdigest() for digest in found]


class _Fixed:
    """Bytes of values of one width."""

    def __init__(self, values: np.ndarray) -> None:
        self._values = np.ascontiguousarray(values)

    def slice(self, first: int, end: int) -> memoryview:
        """Those of rows ``first`` up to ``end``."""
        return self._values[first:end].data.cast("B")


class _Varying:
    """Bytes of values of any width, end to end; [N + 1] ``offsets`` say where each begins."""

    def __init__(self, data: memoryview, offsets: np.ndarray) -> None:
        self._data, self._offsets = data, offsets

    def slice(self, first: int, end: int) -> memoryview:
        """Those of rows ``first`` up to ``end``."""
        return self._data[int(self._offsets[first]) : int(self._offsets[end])]


def _canonical(values: pa.Array) -> tuple[str, list[_Fixed | _Varying]]:
    """The kind of a column's values, and all of its content as bytes."""
    import pyarrow as pa
    import pyarrow.types as kinds

    if kinds.is_dictionary(values.type):
        values = values.dictionary_decode()
    valid = _Fixed(values.is_valid().to_numpy(zero_copy_only=False))
    if kinds.is_boolean(values.type):
        return "bool", [valid, _Fixed(values.fill_null(False).to_numpy(zero_copy_only=False))]
    for is_kind, kind, width in (
        (kinds.is_signed_integer, "int", pa.int64()),
        (kinds.is_unsigned_integer, "int", pa.uint64()),
        (kinds.is_floating, "float", pa.float64()),
    ):
        if is_kind(values.type):
            filled = values.cast(width).fill_null(0).to_numpy(zero_copy_only=False)
            return kind, [valid, _Fixed(filled)]
    if kinds.is_string(values.type) or kinds.is_large_string(values.type):
        return "text", [valid, *_text(values.fill_null(""))]
    # Rare, such as lists: slower, and still bit by bit.
    texts = [json.dumps(value, sort_keys=True, default=repr) for value in values.to_pylist()]
    return "other", [valid, *_text(pa.array(texts, pa.large_string()))]


def _text(values: pa.Array) -> list[_Fixed | _Varying]:
    """Lengths and characters of strings without missing values."""
    import pyarrow as pa

    values = values.cast(pa.large_string())
    _, offsets, data = values.buffers()
    if not len(values) or data is None:
        return [_Fixed(np.zeros(len(values), np.int64))]
    ends = np.frombuffer(offsets, np.int64)[values.offset : values.offset + len(values) + 1]
    return [_Fixed(np.diff(ends)), _Varying(memoryview(data), ends)]
