"""The typed schema of the keys ``shards.*``, with the range of every value."""

from __future__ import annotations

from dataclasses import dataclass

from curate.run.schema import check

HASH, SOURCE = ORDERS = ("hash", "source")


@dataclass
class ShardsConfig:
    """How samples are packed.

    Attributes:
        max_samples: in one shard, at most.
        image_format: of the stored pictures.
        jpeg_quality: of those that are encoded again.
        order: hash mixes samples by the hash of their key, and added pictures move few others; source packs
            them in the order of the input, which reads it from front to back, and added pictures move all
            that come after them.
    """

    max_samples: int = 1000
    image_format: str = "auto"
    jpeg_quality: int = 95
    order: str = HASH

    def __post_init__(self) -> None:
        check(self.max_samples > 0, "shards.max_samples", self.max_samples, "> 0")
        check(
            self.image_format in ("auto", "jpg", "png"),
            "shards.image_format",
            self.image_format,
            "auto (png if all sources are, else jpg), jpg, png",
        )
        check(1 <= self.jpeg_quality <= 100, "shards.jpeg_quality", self.jpeg_quality, "1 ... 100")
        check(
            self.order in ORDERS,
            "shards.order",
            self.order,
            "hash (mixed; added pictures move few others), source (as in the input)",
        )
