"""What a run wants to know of each pair."""

from __future__ import annotations

from dataclasses import dataclass

from curate.gate import Gate


@dataclass(frozen=True)
class Request:
    """What is to be measured; parts that were measured otherwise are measured again.

    Attributes:
        clip_model: the CLIP that scores, as the ledger names it: name, weights and fingerprint.
        gate: the cheap rules; what fails them is neither decoded nor scored.
        measures: names of the optional measures, see ``measures.registry``.
    """

    clip_model: str
    gate: Gate
    measures: tuple[str, ...] = ()
