"""Looks in flat files, in which tasks of other processes search; no memory holds them all."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from curate.decide.evidence import is_plain
from curate.measures.thumbnail import BYTES
from curate.run import arrays
from curate.run.files import atomic_write

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
        with arrays.writing(folder, "numbers", "hashes", "thumbnails") as files:
            numbers, hashes, thumbnails = files
            for called, hashed, seen in batches:
                searched = ~is_plain(seen)
                numbers.write(called[searched].astype(np.int64))
                hashes.write(hashed[searched].astype(np.uint64))
                thumbnails.write(seen[searched])
                count += int(searched.sum())
        return cls(folder, count)

    @property
    def numbers(self) -> np.ndarray:
        """(N,) int64, what each look is called by."""
        return arrays.mapped(self.folder, "numbers", np.int64, (self.count,))

    @property
    def hashes(self) -> np.ndarray:
        """(N,) uint64, perceptual ones."""
        return arrays.mapped(self.folder, "hashes", np.uint64, (self.count,))

    @property
    def thumbnails(self) -> np.ndarray:
        """(N, 96) uint8, see ``measures.thumbnail``."""
        return arrays.mapped(self.folder, "thumbnails", np.uint8, (self.count, BYTES))

    @property
    def led(self) -> np.ndarray:
        """(N,) bool, those that go with a leader, see ``near``, and are compared with no other look."""
        return arrays.mapped(self.folder, "led", np.bool_, (self.count,))

    def write_led_of(self, path: Path, led: Sequence[np.ndarray]) -> None:
        """Write beside the file ``path`` of a bucket which positions are led in it."""
        with atomic_write(path.with_suffix(".led")) as stream:
            np.save(stream, np.concatenate([np.empty(0, np.int64), *led]))

    def write_led(self, paths: Iterable[Path]) -> int:
        """Write which positions are led, from what ``write_led_of`` wrote beside ``paths``, and say how many."""
        led, count = np.zeros(self.count, bool), 0
        for path in paths:
            block = np.load(path.with_suffix(".led"))
            led[block] = True
            count += len(block)
        with arrays.writing(self.folder, "led") as (stream,):
            stream.write(led)
        return count
