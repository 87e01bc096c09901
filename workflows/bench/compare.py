"""Compare the speed of several variants of the same work.

On a shared machine speed varies over time, so a rate alone says little. Each round times every variant
once; the printed ratios are medians of the ratios within each round.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable

ROUNDS = 3

Variants = dict[str, Callable[[], object]]


def compare(title: str, variants: Variants, samples: int, unit: str) -> None:
    """Time every variant and print its rate, and how many times as fast as each other variant it is."""
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(ROUNDS):
        for name, run in variants.items():
            started = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - started)
    say(f"\n{title} (median of {ROUNDS} rounds; ratios within each round)")
    letters = "ABCDEF"[: len(variants)]
    head = "".join(f"{'x ' + letter:>8}" for letter in letters)
    say(f"  {'':44}{unit + '/s':>10}{head}")
    for letter, (name, taken) in zip(letters, seconds.items(), strict=True):
        rate = samples / statistics.median(taken)
        ratios = [_ratio(other, taken) for other in seconds.values()]
        say(f"  {letter} {name:42}{rate:10.1f}" + "".join(f"{ratio:8.2f}" for ratio in ratios))


def _ratio(others: list[float], own: list[float]) -> float:
    """How many times as fast as another variant: the median over the rounds."""
    return statistics.median(other / mine for other, mine in zip(others, own, strict=True))


def say(text: str) -> None:
    """Print and flush, so that a pipe shows it at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
