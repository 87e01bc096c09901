"""The typed schema of the keys ``annotate.*``, with the range of every value."""

from __future__ import annotations

from dataclasses import dataclass, field

from curate.measures import registry
from curate.run.schema import check


@dataclass
class AnnotateConfig:
    """How the measuring is cut into resumable parts."""

    images_per_part: int = 512
    workers: int = 2  # threads that read and decode
    max_reject_rate: float = 0.5  # of 512 images in a row; more unreadable ones stop the run
    draft: bool = False  # decode JPEGs at a fraction of their size: faster, other scores
    measures: list[str] = field(default_factory=list)  # beyond those that the filters need

    def __post_init__(self) -> None:
        key = "annotate.images_per_part"
        check(self.images_per_part > 0, key, self.images_per_part, "> 0")
        check(self.workers > 0, "annotate.workers", self.workers, "> 0")
        rate = self.max_reject_rate
        check(0 <= rate <= 1, "annotate.max_reject_rate", rate, "a share, 0 ... 1")
        for name in self.measures:
            accepted = ", ".join(registry.MEASURES)
            check(name in registry.MEASURES, "annotate.measures", name, accepted)
