"""How many wrong captions there are, and how many a cut leaves: read off the low end of the null.

The pairs are a mixture, a share m of them wrong: F = m F_null + (1 - m) F_true, where F are the
distributions of similarity and wrong captions are taken to score as shuffled ones do. Since F_true
is at least 0, F / F_null bounds m from above at every similarity, and equals m where no true pair
scores as low (Blanchard, Lee, Scott, "Semi-Supervised Novelty Detection", JMLR 2010, section 4).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from curate.decide.shuffled import SHUFFLES, Null
from curate.run.intervals import Z95, wilson

HIGHEST = 0.9  # an upper end that says no more than that the CLIP cannot tell
_FEWEST = 20  # pairs: with fewer, halves of a tail cannot be compared
_NARROWER = math.sqrt(0.5)  # of one tail against the next
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
        share: with its interval. The upper end needs nothing of the true pairs. The lower end
            holds if true pairs grow at least twice as dense from the lower half of the tail
            to the upper one, as those of a CLIP that knows the data do.
        tail: the share of the null, its lowest, that it is read off.
        pairs: how many there are, wrong or not.
    """

    share: Estimate
    tail: float
    pairs: int

    @property
    def is_known(self) -> bool:
        """Whether it excludes that nearly all are wrong."""
        return self.share.high < HIGHEST

    def left(self, null: Null, cut: float, kept: int) -> Estimate:
        """How many of the ``kept`` pairs are wrong: as many of the wrong pass as of the null."""
        passing = null.false_keep_rate(cut) or 0.0
        independent = len(null.similarities) / SHUFFLES
        low, high = wilson(passing * independent, independent)
        wrong = (self.share.value * passing, self.share.low * low, self.share.high * high)
        return Estimate(*(min(share * self.pairs, kept) for share in wrong))


def estimate(similarities: np.ndarray, null: Null) -> Mismatches | None:
    """The share of wrong captions, or None where there is no null or no pair.

    The tail starts as the null's lower half and shrinks while its upper half holds clearly more
    pairs than its lower one, which only true pairs can make.

    Args:
        similarities: of the pairs, (N,).
        null: of shuffled captions.
    """
    if not len(similarities) or not len(null.similarities):
        return None
    tail = 0.5
    lower, upper = _halves(similarities, null, tail)
    while upper - lower > math.sqrt(lower + upper) and lower + upper >= _FEWEST / _NARROWER:
        tail *= _NARROWER
        lower, upper = _halves(similarities, null, tail)
    found, pairs = lower + upper, len(similarities)
    # Were there true pairs in the tail, the upper half would hold more: twice as many as the lower,
    # so that the excess, at its largest, stands for three times itself.
    excess = max(0.0, upper - lower + _ONE_SIDED * math.sqrt(found))
    independent = len(null.similarities) / SHUFFLES
    narrowest, widest = wilson(tail * independent, independent)
    low = wilson(max(0.0, found - 3 * excess), pairs, Z95)[0] / widest
    high = min(1.0, wilson(found, pairs, Z95)[1] / narrowest)
    return Mismatches(Estimate(min(found / pairs / tail, high), low, high), tail, pairs)


def _halves(similarities: np.ndarray, null: Null, tail: float) -> tuple[int, int]:
    """Pairs in the lower and the upper half of the null's tail."""
    middle, end = np.quantile(null.similarities, [tail / 2, tail])
    lower = int((similarities < middle).sum())
    return lower, int((similarities < end).sum()) - lower
