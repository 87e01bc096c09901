"""How far work has come: a bar on a terminal, and in a log file a line now and then."""

from __future__ import annotations

import os
import sys
from time import time
from typing import Any

from tqdm import tqdm

EVERY_S = 30.0  # between two lines, unless TQDM_MININTERVAL says otherwise


class Bar(tqdm):
    """tqdm's bar; where its file is no terminal, lines with the rate and the time left, and one at the end.

    Work that is over sooner than the first line has that one alone; with ``leave=False`` it has none.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        file = options.get("file") or sys.stderr
        self._in_lines = not getattr(file, "isatty", lambda: False)()
        if self._in_lines:
            every = float(os.environ.get("TQDM_MININTERVAL") or EVERY_S)
            self._least_s = options.get("delay", 0.0)  # what takes less is not worth a word
            delay = max(every, self._least_s)
            options |= {"mininterval": every, "miniters": 1, "delay": delay}
        self._said_at = -1.0
        super().__init__(*args, **options)

    def refresh(self, nolock: bool = False, lock_args: Any = None) -> Any:
        """Show the state; in lines only when one is due, which other output is no reason for."""
        if self._in_lines and not self.disable:
            now = time()
            if nolock or (self._said_at >= 0 and now - self._said_at < self.mininterval):
                return False  # nolock: tqdm.write shows all bars again
            if now < self.start_t + self.delay:
                return False
            self._said_at = now
        return super().refresh(nolock, lock_args)

    def display(self, msg: str | None = None, pos: int | None = None) -> Any:
        """Write the state to the file."""
        if not self._in_lines:
            return super().display(msg, pos)
        self._write_line(is_end=False)
        return True

    def clear(self, nolock: bool = False) -> None:
        """Make room for other output, which lines need not."""
        if not self._in_lines:
            super().clear(nolock)

    def close(self) -> None:
        """Show the end."""
        if self.disable or not self._in_lines:
            super().close()
            return
        self.disable = True
        is_first = self.pos == 0
        self._decr_instances(self)  # type: ignore[attr-defined]
        took = time() - self.start_t
        if self.n and took >= self._least_s and (is_first if self.leave is None else self.leave):
            self._write_line(is_end=True)

    def _write_line(self, *, is_end: bool) -> None:
        """The count, the time and the speed, the mean of what this bar has seen done."""
        known = self.format_dict
        n, total, took, unit = (known[name] for name in ("n", "total", "elapsed", "unit"))
        rate = (n - known["initial"]) / took if took else 0.0
        said = [f"{n:,}{f' of {total:,}' if total else ''} {unit}"]
        if is_end:
            said[0] += f" in {self.format_interval(took)}"
        if rate:
            shown = rate if rate >= 1 else 1 / rate
            shown = f"{shown:,.0f}" if shown >= 100 else f"{shown:.3g}"
            said.append(f"{shown} {unit}/s" if rate >= 1 else f"{shown} s/{unit}")
        if rate and total and not is_end:
            said.append(f"{self.format_interval(max(total - n, 0) / rate)} left")
        if known["postfix"]:
            said.append(known["postfix"])
        name = f"{self.desc.removesuffix(': ')}: " if self.desc else ""
        self.fp.write(f"{name}{', '.join(said)}\n")
        getattr(self.fp, "flush", lambda: None)()


def count_done(bar: Bar, items: int) -> None:
    """Move ``bar`` past ``items`` that an earlier run finished: they count, but not in the speed."""
    if not bar.disable:  # a bar that TQDM_DISABLE switches off has no ``initial``
        bar.initial += items
    bar.update(items)
