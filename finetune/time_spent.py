"""What the time of a training went to, and which setting to change where too much of it was not for training."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from curate.run.units import duration

_TOO_MUCH = 0.1  # of all time
_SHORT = 60  # seconds; of less nobody wants advice

BATCHES, UPDATES, LOSSES = "batches", "updates", "held-out losses"
PICTURES, CHECKPOINTS = "pictures", "checkpoints"

_ADVICE = {
    BATCHES: "put run.root on a faster disk, or keep more memory free for the system's file cache",
    LOSSES: "type a larger heldout.every and checkpoint.every, or a smaller heldout.items",
    PICTURES: "type samples.captions=0, a smaller samples.steps, or a larger heldout.every",
    CHECKPOINTS: "type a larger checkpoint.every",
}


@dataclass
class TimeSpent:
    """Seconds by what they were for; each is counted once, for the innermost."""

    seconds: dict[str, float] = field(default_factory=dict)
    _open: list[str] = field(default_factory=list, repr=False)
    _since: float = 0.0

    @contextmanager
    def on(self, what: str) -> Iterator[None]:
        """Count what is inside for ``what``."""
        self._count()
        self._open.append(what)
        try:
            yield
        finally:
            self._count()
            self._open.pop()

    def _count(self) -> None:
        now = time.perf_counter()
        if self._open:
            self.seconds[self._open[-1]] = self.seconds.get(self._open[-1], 0.0) + now - self._since
        self._since = now

    def lines(self) -> list[str]:
        """The shares, the largest first, and a line of advice for each that is too large; none without any time.

        What is less than half a percent is left out.

        >>> TimeSpent({"updates": 80.0, "checkpoints": 20.0}).lines()
        ['1 min 40 s: updates 80 %, checkpoints 20 %', 'checkpoints took 20 % of it: type a larger checkpoint.every']
        """
        total = sum(self.seconds.values())
        if not total:
            return []
        shares = sorted(
            ((spent / total, what) for what, spent in self.seconds.items()), reverse=True
        )
        said = ", ".join(f"{what} {100 * share:.0f} %" for share, what in shares if share >= 0.005)
        advice = [
            f"{what} took {100 * share:.0f} % of it: {_ADVICE[what]}"
            for share, what in shares
            if total >= _SHORT and share > _TOO_MUCH and what in _ADVICE
        ]
        return [f"{duration(total)}: {said}", *advice]
