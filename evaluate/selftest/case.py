"""A planted truth, and what has to be found of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was found.

    Attributes:
        found: in words, with its numbers.
        right: whether it is what was planted; None where it could not be judged, and ``found`` says why.
    """

    found: str
    right: bool | None


@dataclass(frozen=True, slots=True)
class Case:
    """One judgement of the product on data whose truth is known.

    Attributes:
        planted: the truth, such as "72 pictures, learnt by heart".
        expected: what has to be found.
        judge: plants it, asks the product, and compares.
    """

    planted: str
    expected: str
    judge: Callable[[], Outcome]


def share(part: float) -> str:
    """A share in words.

    >>> share(0.013), share(0.95)
    ('1.3 %', '95 %')
    """
    return f"{100 * part:.3g} %"
