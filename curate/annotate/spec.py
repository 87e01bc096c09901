"""What a run measures of each pair."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from curate.annotate.config import BOTH, AnnotateConfig
from curate.annotate.pair_numbers import drawn_bits
from curate.annotate.stored_embeddings import Stored
from curate.clip.config import ClipConfig
from curate.clip.models import fingerprint, label
from curate.filters.config import FiltersConfig
from curate.filters.prefilter import Prefilter
from curate.measures import registry


@dataclass(frozen=True)
class AnnotationSpec:
    """What to measure; parts that were measured by another spec are measured again.

    Attributes:
        clip_model: the CLIP that scores, as the ledger names it: name, weights and fingerprint.
        prefilter: the cheap rules; what fails them is neither decoded nor scored.
        measures: the optional measures with the versions of their models, see ``registry.versions``.
        draft: whether JPEGs are decoded at a fraction of their size, see ``measures.decode.decode``.
        stored: which embeddings the parts keep, see ``for_images``.
    """

    clip_model: str
    prefilter: Prefilter
    measures: dict[str, str] = field(default_factory=dict)
    draft: bool = False
    stored: Stored = field(default_factory=Stored)

    @classmethod
    def of(
        cls, clip: ClipConfig, filters: FiltersConfig, annotate: AnnotateConfig
    ) -> AnnotationSpec:
        """The spec of a configuration."""
        return cls(
            f"{label(clip)} {fingerprint(clip, annotate.draft)}",
            Prefilter(filters.image, filters.caption),
            registry.versions(needed(filters, annotate.measures)),
            annotate.draft,
            Stored(annotate.embeddings),
        )

    def for_images(self, count: int) -> AnnotationSpec:
        """The same for a data set of ``count`` images, which decides which embeddings are left out."""
        if self.stored.kind == BOTH:
            return self
        return replace(self, stored=Stored(self.stored.kind, drawn_bits(count)))


def needed(filters: FiltersConfig, wanted: Sequence[str]) -> tuple[str, ...]:
    """The optional measures that the rules read, and the ``wanted`` ones, sorted."""
    columns = {*filters.columns, *filters.consent.columns}
    if filters.language.accepted is not None or filters.language.rejected is not None:
        columns.add("language")
    if filters.caption.max_tokens is not None:
        columns.add("tokens")
    read = [name for name, m in registry.MEASURES.items() if not columns.isdisjoint(m.columns)]
    return tuple(sorted({*wanted, *read}))
