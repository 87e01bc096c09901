"""Synthetic data for the benchmarks, shaped like COCO: 640 x 480 JPEGs with five captions each."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from curate.readers.candidate import Candidate
from curate.readers.source import Source

CAPTIONS_EACH = 5  # as in COCO
WORDS = (
    *("a", "red", "blue", "small", "large", "cat", "dog", "house"),
    *("tree", "on", "under", "beside", "the", "table", "street"),
)


@dataclass(frozen=True)
class Photographs:
    """JPEGs of blurred colours and noise, about as large as photographs, with captions of random words.

    Attributes:
        count: number of pictures; picture n does not depend on it.
        width: in pixels; the height is three quarters of it.
        distinct: how many pictures are generated in advance; further ones repeat them and differ only
            in bytes appended to the file. None: every picture is different, and generated when read.
    """

    count: int
    width: int = 640
    distinct: int | None = 64

    def source(self) -> Source:
        """A source that `curate` can read."""
        if self.distinct is None:
            return Source(self._candidates, lambda location: self._draw(int(location)), self.count)
        drawn = [self._draw(number) for number in range(min(self.count, self.distinct))]

        def load(location: str) -> bytes:
            number = int(location)
            # Bytes after a JPEG's end are ignored by decoders but change its hash.
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
        # Film grain: noise makes decoding as much work as for a photograph.
        grain = rng.normal(0, 6, (size[1], size[0], 3))
        noisy = (np.asarray(picture) + grain).clip(0, 255).astype(np.uint8)
        stream = io.BytesIO()
        Image.fromarray(noisy).save(stream, "JPEG", quality=90)
        return stream.getvalue()
