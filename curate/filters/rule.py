"""A rule: which pairs to drop, by their own row alone, and the reason that the ledger records for them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    import pandas as pd

Measure: TypeAlias = "Callable[[pd.DataFrame], pd.Series]"
"""Pairs => one number for each, NaN where it is unknown."""


@dataclass(frozen=True, slots=True)
class Reason:
    """What the ledger and the funnel call a rule.

    Attributes:
        name: one word: the rule's row in the funnel, and the ledger's column ``rule``.
        reason: the ledger's column ``reason`` for the pairs that the rule drops.
    """

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class Rule(Reason):
    """A rule that judges each pair by its own row; see ``decide.judgement`` for those that compare pairs.

    Attributes:
        drops: some pairs => a mask (N,), True for each pair to drop.
        cut: the lowest value that it keeps, None if it has no lower bound.
        margin: of a rule with a bound, how far each pair is inside of it, in the unit of what it measures.
    """

    drops: Callable[[pd.DataFrame], pd.Series]
    cut: float | None = None
    margin: Measure | None = None


def within(
    name: str, measure: Measure, low: float | None = None, high: float | None = None
) -> list[Rule]:
    """Rules that keep ``low <= measure <= high``; None leaves that end open."""
    found = [] if low is None else [below(name, measure, low)]
    return found if high is None else [*found, above(name, measure, high)]


def below(name: str, measure: Measure, bound: float) -> Rule:
    """Drop pairs whose measure is less than ``bound``; pairs without a number stay."""
    least = rounded(bound)
    return Rule(
        name,
        f"{name} < {_shown(bound)}",
        lambda pairs: measure(pairs) < least,
        cut=float(bound),
        margin=lambda pairs: measure(pairs) - least,
    )


def above(name: str, measure: Measure, bound: float) -> Rule:
    """Drop pairs whose measure is more than ``bound``; pairs without a number stay."""
    most = rounded(bound)
    return Rule(
        name,
        above_reason(name, bound).reason,
        lambda pairs: measure(pairs) > most,
        margin=lambda pairs: most - measure(pairs),
    )


def above_reason(name: str, bound: float) -> Reason:
    """What is said of a measure above its bound."""
    return Reason(name, f"{name} > {_shown(bound)}")


def rounded(bound: float) -> float:
    """The bound in the precision of the measures, so that a bound of 0.28 keeps 0.28 itself.

    Counts are compared exactly, other measures are float32.
    """
    import numpy as np

    return bound if isinstance(bound, int) else float(np.float32(bound))


def _shown(bound: float) -> str:
    """The fewest digits that tell a bound from the next float32: "7" and "7.0000005" differ."""
    import numpy as np

    if isinstance(bound, int):
        return str(bound)
    return np.format_float_positional(np.float32(bound), trim="-")
