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
    """Time every way in turn and print its rate and its speed relative to the last one."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, way in ways.items():
            started = time.perf_counter()
            way()
            seconds[name].append(time.perf_counter() - started)
    yardstick = list(ways)[-1]
    say(f"\n{title} (median of {ROUNDS} rounds; ratio within each round)")
    for name, taken in seconds.items():
        ratios = [base / own for own, base in zip(taken, seconds[yardstick], strict=True)]
        rate = samples / statistics.median(taken)
        say(f"  {name:44} {rate:10.1f} {unit}/s   {statistics.median(ratios):5.2f} x {yardstick}")


def say(text: str) -> None:
    """Print at once, also into a pipe."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
