"""Columns of numbers that may be longer than memory: files that are appended to and read by slices or places."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import DTypeLike

from curate.run.files import naming


class NumberFile:
    """A column of N numbers of one type, plain bytes in a file; no other process reads it."""

    def __init__(self, path: Path, kind: DTypeLike) -> None:
        """Begin an empty column at ``path``, in a folder that is there."""
        self.path, self.kind, self._count = path, np.dtype(kind), 0
        path.write_bytes(b"")

    def __len__(self) -> int:
        return self._count

    def append(self, values: np.ndarray) -> None:
        """Add numbers (n,) at the end.

        Raises:
            OSError: the disk is full; names the file.
        """
        with naming(self.path), self.path.open("ab") as stream:
            stream.write(np.ascontiguousarray(values, self.kind).data)
        self._count += len(values)

    def read(self, start: int = 0, end: int | None = None) -> np.ndarray:
        """Those from ``start`` up to ``end``; all without one."""
        end = self._count if end is None else min(end, self._count)
        offset = start * self.kind.itemsize
        return np.fromfile(self.path, self.kind, max(end - start, 0), offset=offset)

    def blocks(self, size: int) -> Iterator[np.ndarray]:
        """All in turn, at most ``size`` at a time."""
        for start in range(0, self._count, size):
            yield self.read(start, start + size)

    def take(self, places: np.ndarray) -> np.ndarray:
        """Those at ``places`` (n,); the file is mapped meanwhile, so that memory is given back."""
        if not len(places):
            return np.empty(0, self.kind)
        return np.array(np.memmap(self.path, self.kind, "r")[places])
