"""The typed schema of the keys ``annotate.*``, with the range of every value."""

from __future__ import annotations

from dataclasses import dataclass, field

from curate.measures import registry
from curate.run.schema import check

BOTH, IMAGE, NONE = "both", "image", "none"
KINDS = (BOTH, IMAGE, NONE)  # of ``annotate.embeddings``, from most to least


@dataclass
class AnnotateConfig:
    """How the measuring is cut into resumable parts."""

    images_per_part: int | None = (
        None  # null: 512 in the first million images, later more; see annotate.listing
    )
    workers: int = 2  # threads that read and decode
    max_reject_rate: float = 0.5  # of 512 images in a row; more unreadable ones stop the run
    draft: bool = False  # decode JPEGs at a fraction of their size: faster, other scores
    measures: list[str] = field(default_factory=list)  # beyond those that the filters need
    embeddings: str = BOTH  # kept of all pairs; what is left out is kept of pairs that may be drawn

    def __post_init__(self) -> None:
        key = "annotate.images_per_part"
        size = self.images_per_part
        check(size is None or size > 0, key, size, "null or > 0")
        check(self.workers > 0, "annotate.workers", self.workers, "> 0")
        rate = self.max_reject_rate
        check(0 <= rate <= 1, "annotate.max_reject_rate", rate, "a share, 0 ... 1")
        check(self.embeddings in KINDS, "annotate.embeddings", self.embeddings, "|".join(KINDS))
        for name in self.measures:
            accepted = ", ".join(registry.MEASURES)
            check(name in registry.MEASURES, "annotate.measures", name, accepted)
