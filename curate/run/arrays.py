"""Arrays as plain bytes in files: a full disk does not go unnoticed, nor a file that is too short."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import DTypeLike

from curate.run.files import naming


class Writer:
    """Appends arrays to a file. ``ndarray.tofile`` would ignore the error of its last write."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def write(self, values: np.ndarray) -> None:
        """Append the bytes of an array, row by row."""
        self._stream.write(np.ascontiguousarray(values).data)


@contextmanager
def writing(folder: Path, *names: str) -> Iterator[tuple[Writer, ...]]:
    """Write new files ``NAME.bin`` in a folder.

    Raises:
        OSError: the disk is full; names the file.
    """
    with ExitStack() as stack:
        writers = []
        for path in (path_of(folder, name) for name in names):
            stack.enter_context(naming(path))
            writers.append(Writer(stack.enter_context(path.open("wb"))))
        yield (*writers,)


def mapped(folder: Path, name: str, dtype: DTypeLike, shape: tuple[int, ...]) -> np.ndarray:
    """What ``writing`` wrote, read from the disk as it is asked for.

    Raises:
        ValueError: the file is shorter than ``shape``.
    """
    if 0 in shape:  # an empty file cannot be mapped
        return np.zeros(shape, dtype)
    return np.asarray(np.memmap(path_of(folder, name), dtype, "r", shape=shape))


def path_of(folder: Path, name: str) -> Path:
    """The file of an array."""
    return folder / f"{name}.bin"
