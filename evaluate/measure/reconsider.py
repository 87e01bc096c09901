"""Training pairs whose caption does not help the model: candidates, their caption gain, and which are listed.

The caption gain of a pair is how much less its loss is with its caption than with none, at the same noise,
a pointwise estimate of what the caption says of the picture (Kong et al. 2023, "Interpretable diffusion via
information decomposition", eq. 13). Wrong captions gain nothing.

Chosen by measurement. In the demo 65 of 2,497 training pairs have a wrong caption that the filter let pass. Area
under the ROC curve of telling them from 335 right pairs, 10 noise levels: fall of the own loss over training
0.47, own loss 0.65, gain against none of the base 0.78 and of the checkpoint to keep 0.90 (three noise levels:
0.89), gain of the base against another's caption 0.77. So the loss over training names no wrong pair. Among the
384 pairs that CLIP found least similar, 57 of them wrong: similarity 0.75, gain 0.83, the ranks of both 0.85. Of
the first 20 that are listed 13 are wrong, of the first 100 42.

A model that has learned its training pictures by heart gains from their wrong captions, too, so fewer of them are
listed, or none; no rule looks for such a model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from curate.run.intervals import wilson
from curate.run.reconsider import Doubt
from finetune.intervals import Array, group_means

MOST_LISTED = 100
LEAST_REFERENCE = 16  # groups, for the typical gain to be known


@dataclass(frozen=True, slots=True)
class Gains:
    """Caption gains of N training pictures.

    Attributes:
        keys, captions, groups: of each.
        gain: [N] how much less the loss is with the caption than with none, as a share of the mean loss
            with captions.
        similarity: [N] of the curation's CLIP, NaN where there is none.
        below: [N] the share of all training pictures that are less similar; NaN likewise.
        reference: [M] gains of other training pictures, chosen by hash. reference_groups: of each.
    """

    keys: Sequence[str]
    captions: Sequence[str]
    groups: Sequence[str]
    gain: Array
    similarity: Array
    below: Array
    reference: Array
    reference_groups: Sequence[str]

    @property
    def typical(self) -> float:
        """The median gain of the reference."""
        return float(np.median(self.reference))


def candidates(
    keys: Sequence[str], similarity: Array, seeds: Sequence[int], count: int
) -> list[int]:
    """Which of N pictures to measure: the least similar; those without a similarity first, by their seeds.

    Args:
        keys: [N], which settle equal similarities and seeds.
        similarity: [N], NaN where there is none.
        seeds: [N] a hash of each key.
        count: how many at most.
    """
    known = np.nan_to_num(similarity, nan=-2.0)  # below every cosine
    order = sorted(range(len(keys)), key=lambda i: (known[i], seeds[i], keys[i]))
    return order[:count]


def unknown(found: Gains) -> str:
    """Why no pair can be called doubtful; "" if some may be."""
    means = group_means(found.reference, found.reference_groups)
    if len(means) < LEAST_REFERENCE:
        return f"{len(means)} groups of training pictures to compare with; at least {LEAST_REFERENCE} needed"
    helped = int((means > 0).sum())
    if wilson(helped, len(means))[0] <= 0.5:
        return (
            "captions help this model too little to say of a single one that it does not (of "
            f"{len(means)} groups of training pictures, {helped} have a lower loss with their captions)"
        )
    return ""


def listed(found: Gains) -> list[int]:
    """The pictures whose caption gains nothing, those that both gain and similarity are lowest of first.

    Pictures without a similarity are ordered by their gain alone; at most ``MOST_LISTED``.
    """
    if unknown(found):
        return []
    score = _ranks(found.gain)
    known = ~np.isnan(found.similarity)
    score[known] = (score[known] + _ranks(found.similarity)[known]) / 2
    nothing = np.flatnonzero(found.gain <= 0).tolist()
    return sorted(nothing, key=lambda i: (score[i], found.keys[i]))[:MOST_LISTED]


def doubts(found: Gains) -> list[Doubt]:
    """The rows of ``reconsider.csv``, in their order."""
    return [
        Doubt(
            key=found.keys[i],
            caption=found.captions[i],
            reason=reason(found, i),
            caption_gain=float(found.gain[i]),
            typical_gain=found.typical,
            similarity=None if np.isnan(found.similarity[i]) else float(found.similarity[i]),
        )
        for i in listed(found)
    ]


def _ranks(values: Array) -> Array:
    """The share of values that are lower, float64; NaN counts as the highest."""
    order = np.sort(values)
    return np.searchsorted(order, values) / max(len(values), 1)


def reason(found: Gains, index: int) -> str:
    """Why a pair is listed, in words."""
    loss = -100 * found.gain[index]
    said = (
        f"its caption does not help: the loss is {loss:.1f} % higher with it than with none "
        f"(typical: {100 * found.typical:.1f} % lower)"
    )
    if np.isnan(found.similarity[index]):
        return said
    return (
        f"{said}; CLIP similarity {found.similarity[index]:.3f}, "
        f"higher than that of {100 * found.below[index]:.0f} % of the training pictures"
    )
