"""Looks in flat files, in which tasks of other processes search; no memory holds them all."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from curate.decide.evidence import is_plain
from curate.measures.thumbnail import BYTES

Batch = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Numbers (n,) int64 that the looks are called by, hashes (n,) uint64 and thumbnails (n, ``BYTES``) uint8."""


@dataclass(frozen=True, slots=True)
class LookFiles:
    """N different looks in an order that says which comes first, none of them plain.

    Of plain ones, see ``evidence.is_plain``, the hash says nothing; they have copies among equals alone.

    Attributes:
        folder: of the files: 105 bytes a look.
        count: N.
    """

    folder: Path
    count: int

    @classmethod
    def write(cls, folder: Path, batches: Iterable[Batch]) -> LookFiles:
        """Write those of ``batches`` that are not plain, in their order, to an empty folder."""
        folder.mkdir(parents=True)
        count = 0
        with (
            (folder / "numbers.bin").open("wb") as numbers,
            (folder / "hashes.bin").open("wb") as hashes,
            (folder / "thumbnails.bin").open("wb") as thumbnails,
        ):
            for called, hashed, seen in batches:
                searched = ~is_plain(seen)
                called[searched].astype(np.int64).tofile(numbers)
                hashed[searched].astype(np.uint64).tofile(hashes)
                seen[searched].tofile(thumbnails)
                count += int(searched.sum())
        return cls(folder, count)

    @property
    def numbers(self) -> np.ndarray:
        """(N,) int64, what each look is called by."""
        return self._open("numbers", np.int64)

    @property
    def hashes(self) -> np.ndarray:
        """(N,) uint64, perceptual ones."""
        return self._open("hashes", np.uint64)

    @property
    def thumbnails(self) -> np.ndarray:
        """(N, 96) uint8, see ``measures.thumbnail``."""
        return self._open("thumbnails", np.uint8, BYTES)

    @property
    def led(self) -> np.ndarray:
        """(N,) bool, those that go with a leader, see ``near``, and are compared with no other look."""
        return self._open("led", np.bool_)

    def write_led(self, blocks: Iterable[np.ndarray]) -> int:
        """Write which positions are led, from blocks of them, and say how many."""
        led, count = np.zeros(self.count, bool), 0
        for block in blocks:
            led[block] = True
            count += len(block)
        led.tofile(self.folder / "led.bin")
        return count

    def _open(self, name: str, dtype: type, width: int | None = None) -> np.ndarray:
        shape = (self.count,) if width is None else (self.count, width)
        if not self.count:  # an empty file cannot be mapped
            return np.zeros(shape, dtype)
        return np.asarray(np.memmap(self.folder / f"{name}.bin", dtype, "r", shape=shape))
