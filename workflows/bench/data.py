"""Data for the benchmarks that looks like COCO: JPEG photographs of 640 x 480, five captions each."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from curate.readers.candidate import Candidate
from curate.readers.source import Source

CAPTIONS_EACH = 5  # COCO
WORDS = (
    *("a", "red", "blue", "small", "large", "cat", "dog", "house"),
    *("tree", "on", "under", "beside", "the", "table", "street"),
)


@dataclass(frozen=True)
class Photographs:
    """Pictures of coloured blobs with the bytes of a photograph, and captions of random words.

    Attributes:
        count: pictures; the same number is the same picture.
        width: in pixels; the height is three quarters of it.
        distinct: pictures that are drawn, beforehand; beyond them the same ones come again, other
            bytes alone telling them apart. None: each is another, drawn whenever it is read.
    """

    count: int
    width: int = 640
    distinct: int | None = 64

    def source(self) -> Source:
        """As a data set that curation reads."""
        if self.distinct is None:
            return Source(self._candidates, lambda location: self._draw(int(location)), self.count)
        drawn = [self._draw(number) for number in range(min(self.count, self.distinct))]

        def load(location: str) -> bytes:
            number = int(location)
            # A JPEG may end with anything; other bytes make another picture of it.
            return drawn[number % len(drawn)] + number.to_bytes(4, "big")

        return Source(self._candidates, load, self.count)

    def _candidates(self) -> Iterator[Candidate]:
        for number in range(self.count):
            rng = np.random.default_rng(number)
            captions = tuple(
                " ".join(rng.choice(WORDS, rng.integers(8, 14))) for _ in range(CAPTIONS_EACH)
            )
            yield Candidate(f"{number:09d}", captions, "bench", str(number), "1")

    def _draw(self, number: int) -> bytes:
        from PIL import Image

        rng = np.random.default_rng(number)
        coarse = rng.integers(0, 255, (12, 16, 3), dtype=np.uint8)
        size = (self.width, self.width * 3 // 4)
        picture = Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)
        grain = rng.normal(
            0, 6, (size[1], size[0], 3)
        )  # a photograph's, for the decoder to work on
        noisy = (np.asarray(picture) + grain).clip(0, 255).astype(np.uint8)
        stream = io.BytesIO()
        Image.fromarray(noisy).save(stream, "JPEG", quality=90)
        return stream.getvalue()
