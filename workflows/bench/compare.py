"""Several ways to do the same take turns, and what is printed are ratios within a round.

Machines are shared and drift, so a rate alone says little: each round times every way once, and what
is printed are medians over the rounds.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable

ROUNDS = 3

Ways = dict[str, Callable[[], object]]


def compare(title: str, ways: Ways, samples: int, unit: str) -> None:
    """Time every way in turn and print its rate, and how many times as fast as each it is."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, way in ways.items():
            started = time.perf_counter()
            way()
            seconds[name].append(time.perf_counter() - started)
    say(f"\n{title} (median of {ROUNDS} rounds; ratios within each round)")
    letters = "ABCDEF"[: len(ways)]
    head = "".join(f"{'x ' + letter:>8}" for letter in letters)
    say(f"  {'':44}{unit + '/s':>10}{head}")
    for letter, (name, taken) in zip(letters, seconds.items(), strict=True):
        rate = samples / statistics.median(taken)
        ratios = [_ratio(other, taken) for other in seconds.values()]
        say(f"  {letter} {name:42}{rate:10.1f}" + "".join(f"{ratio:8.2f}" for ratio in ratios))


def _ratio(others: list[float], own: list[float]) -> float:
    """How often as fast as another way, by the rounds' median."""
    return statistics.median(other / mine for other, mine in zip(others, own, strict=True))


def say(text: str) -> None:
    """Print at once, also into a pipe."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
