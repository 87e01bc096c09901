"""What a run wants to know of each pair."""

from __future__ import annotations

from dataclasses import dataclass

from curate import clip_models
from curate.config import CurateConfig
from curate.gate import Gate
from curate.measures import registry


@dataclass(frozen=True)
class Request:
    """What is to be measured; parts that were measured otherwise are measured again.

    Attributes:
        clip_model: the CLIP that scores, as the ledger names it: name, weights, fingerprint, and
            whether pictures were decoded at a fraction of their size.
        gate: the cheap rules; what fails them is neither decoded nor scored.
        measures: names of the optional measures, see ``measures.registry``.
        draft: see ``images.decode``.
    """

    clip_model: str
    gate: Gate
    measures: tuple[str, ...] = ()
    draft: bool = False

    @classmethod
    def of(cls, config: CurateConfig) -> Request:
        """What the configuration's CLIP and rules ask for."""
        draft = config.annotate.draft
        model = f"{clip_models.label(config.clip)} {clip_models.fingerprint(config.clip)}"
        return cls(
            f"{model} draft" if draft else model,
            Gate(config.filters.image, config.filters.caption),
            registry.needed(config.filters, config.annotate.measures),
            draft,
        )
