"""Estimate how many captions are wrong, and how many of these a cut keeps.

The pairs are a mixture with a share m of wrong captions: F = m F_null + (1 - m) F_true, where F are
the cumulative distributions of similarity and F_null is that of shuffled captions, which wrong
captions are assumed to follow. Since F_true is at least 0, F / F_null bounds m from above at every
similarity, and equals m where no true pair scores as low; so m is read from the low end (tail) of
the null (Blanchard, Lee, Scott, "Semi-Supervised Novelty Detection", JMLR 2010, section 4).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from curate.decide.shuffled_captions import SHUFFLES, Null
from curate.decide.similarities import Similarities
from curate.run.intervals import Z95, wilson

HIGHEST = 0.9  # with an upper end above this, the CLIP cannot tell
_FEWEST = 20  # pairs; with fewer, the halves of a tail cannot be compared
_NARROWER = math.sqrt(0.5)  # the next tail as a multiple of the last
_ONE_SIDED = 1.64


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number and its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Mismatches:
    """The share of wrong captions among some pairs.

    Attributes:
        share: with its interval. The upper end assumes nothing about the true pairs. The lower end
            assumes that the upper half of the tail holds at least twice as many true pairs as the
            lower half, as it does for a CLIP that knows the data.
        tail: the lowest share of the null, from which ``share`` is estimated.
        pairs: how many pairs there are, wrong or not.
    """

    share: Estimate
    tail: float
    pairs: int

    @property
    def is_known(self) -> bool:
        """Whether the interval excludes that nearly all captions are wrong."""
        return self.share.high < HIGHEST

    def wrong_kept(self, null: Null, cut: float, kept: int) -> Estimate:
        """How many of the ``kept`` pairs are wrong, if wrong captions pass ``cut`` as often as the null."""
        passing = null.false_keep_rate(cut) or 0.0
        independent = len(null.similarities) / SHUFFLES
        low, high = wilson(passing * independent, independent)
        wrong = (self.share.value * passing, self.share.low * low, self.share.high * high)
        return Estimate(*(min(share * self.pairs, kept) for share in wrong))


def estimate(similarities: Similarities, null: Null) -> Mismatches | None:
    """The share of wrong captions, or None where there is no null or no pair.

    The tail starts as the lower half of the null and shrinks while its upper half holds clearly more
    pairs than its lower half: only true pairs can cause that.

    Args:
        similarities: of the pairs.
        null: similarities of shuffled captions.
    """
    if not similarities.pairs or not len(null.similarities):
        return None
    tail = 0.5
    lower, upper = _halves(similarities, null, tail)
    while upper - lower > math.sqrt(lower + upper) and lower + upper >= _FEWEST / _NARROWER:
        tail *= _NARROWER
        lower, upper = _halves(similarities, null, tail)
    found, pairs = lower + upper, similarities.pairs
    # Any true pairs in the tail are at least twice as many in its upper half as in its lower half, so
    # there are at most three times as many as the upper half has in excess.
    excess = max(0.0, upper - lower + _ONE_SIDED * math.sqrt(found))
    independent = len(null.similarities) / SHUFFLES
    narrowest, widest = wilson(tail * independent, independent)
    low = wilson(max(0.0, found - 3 * excess), pairs, Z95)[0] / widest
    high = min(1.0, wilson(found, pairs, Z95)[1] / narrowest)
    return Mismatches(Estimate(min(found / pairs / tail, high), low, high), tail, pairs)


def _halves(similarities: Similarities, null: Null, tail: float) -> tuple[int, int]:
    """The number of pairs in the lower and in the upper half of the null's tail."""
    middle, end = np.quantile(null.similarities, [tail / 2, tail])
    lower = similarities.count(similarities.values < middle)
    return lower, similarities.count(similarities.values < end) - lower
