"""The typed schema of the keys ``shards.*``, with the range of every value."""

from __future__ import annotations

from dataclasses import dataclass

from curate.run.schema import check


@dataclass
class ShardsConfig:
    """How samples are packed."""

    max_samples: int = 1000
    image_format: str = "auto"
    jpeg_quality: int = 95

    def __post_init__(self) -> None:
        check(self.max_samples > 0, "shards.max_samples", self.max_samples, "> 0")
        check(
            self.image_format in ("auto", "jpg", "png"),
            "shards.image_format",
            self.image_format,
            "auto (png if all sources are, else jpg), jpg, png",
        )
        check(1 <= self.jpeg_quality <= 100, "shards.jpeg_quality", self.jpeg_quality, "1 ... 100")
