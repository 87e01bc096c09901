"""The noun of the filters: a rule, which marks the pairs to drop and says why."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

Measure = Callable[[pd.DataFrame], pd.Series]
"""Pairs => a number for each; NaN where there is none."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One reason to drop pairs.

    Attributes:
        name: one word, the row of the funnel and the ledger's column ``rule``.
        reason: the ledger's column ``reason`` of the pairs it drops.
        drops: the pairs that are left => a mask (N,), True where one goes.
        cut: the pairs that it kept => the lowest value that it keeps; None where it has no such.
    """

    name: str
    reason: str
    drops: Callable[[pd.DataFrame], pd.Series]
    cut: Callable[[pd.DataFrame], float | None] = lambda kept: None


def below(name: str, measure: Measure, bound: float) -> Rule:
    """Drop pairs whose measure is less than ``bound``; one without a number stays."""
    least, shown = _stored(bound), _shown(bound)
    return Rule(
        name,
        f"{name} < {shown}",
        lambda pairs: measure(pairs) < least,
        cut=lambda kept: float(bound),
    )


def above(name: str, measure: Measure, bound: float) -> Rule:
    """Drop pairs whose measure is more than ``bound``; one without a number stays."""
    most, shown = _stored(bound), _shown(bound)
    return Rule(name, f"{name} > {shown}", lambda pairs: measure(pairs) > most)


def _stored(bound: float) -> float:
    """As measures are: counts exactly, others in float32, so that 0.28 itself passes a bound of 0.28."""
    return bound if isinstance(bound, int) else float(np.float32(bound))


def _shown(bound: float) -> str:
    """Enough digits to tell it from its neighbours: 7 and the next number above it read differently."""
    if isinstance(bound, int):
        return str(bound)
    return np.format_float_positional(np.float32(bound), trim="-")


def within(name: str, measure: Measure, low: float | None, high: float | None) -> list[Rule]:
    """The rules of a range; None leaves an end open."""
    found = [] if low is None else [below(name, measure, low)]
    return found if high is None else [*found, above(name, measure, high)]
