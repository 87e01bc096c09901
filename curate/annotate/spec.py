"""What a run wants to know of each pair."""

from __future__ import annotations

from dataclasses import dataclass, field

from curate.clip import models as clip_models
from curate.filters.prefilter import Gate
from curate.measures import registry
from curate.pipeline.config import CurateConfig


@dataclass(frozen=True)
class Request:
    """What is to be measured; parts that were measured otherwise are measured again.

    Attributes:
        clip_model: the CLIP that scores, as the ledger names it: name, weights and fingerprint.
        gate: the cheap rules; what fails them is neither decoded nor scored.
        measures: the optional measures with their stamps, see ``measures.registry``.
        draft: see ``images.decode``.
    """

    clip_model: str
    gate: Gate
    measures: dict[str, str] = field(default_factory=dict)
    draft: bool = False

    @classmethod
    def of(cls, config: CurateConfig) -> Request:
        """What the configuration's CLIP and rules ask for."""
        draft = config.annotate.draft
        return cls(
            f"{clip_models.label(config.clip)} {clip_models.fingerprint(config.clip, draft)}",
            Gate(config.filters.image, config.filters.caption),
            registry.stamps(registry.needed(config.filters, config.annotate.measures)),
            draft,
        )
