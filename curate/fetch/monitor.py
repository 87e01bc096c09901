"""A running fetch on the terminal or in a log: progress, an estimate of the whole, and warnings."""

from __future__ import annotations

import sys
from time import monotonic
from types import TracebackType
from typing import Any, TextIO

from curate.fetch import figures as figure
from curate.fetch.answer import Answer, Request
from curate.fetch.config import FetchConfig
from curate.fetch.figures import RECENT, Figures
from curate.fetch.hosts import host_of
from curate.run.progress import Bar, count_done

_EVERY = 100  # answers between two looks at the causes
_LEAST = 100  # answers for a warning at the end
_REFRESH_S = 0.5
_LETTERS = 80  # shown of a host, of which a table may have any length


class Monitor:
    """Counts answers and says how it goes; a context manager, around the whole fetch.

    Attributes:
        figures: of this fetch, without earlier ones.
    """

    def __init__(
        self,
        config: FetchConfig,
        total: int | None,
        done: int = 0,
        *,
        file: TextIO | None = None,
        clock: Any = monotonic,
    ) -> None:
        """Start to count.

        Args:
            config: of the fetch.
            total: rows of the table, None if unknown.
            done: rows that have an answer from an earlier fetch.
            file: to which progress and messages are written, by default standard error.
            clock: seconds.
        """
        self.figures = Figures()
        self._config, self._clock, self._file = config, clock, file or sys.stderr
        self._rest = None if total is None else total - done
        self._began = self._shown = clock()
        self._warned: set[str] = set()
        self._answered = 0
        options: dict[str, Any] = {"file": self._file}
        self._bar = Bar(total=total, desc="fetch", unit="url", **options)
        count_done(self._bar, done)
        self._lines: list[Bar] = []
        if getattr(self._file, "isatty", lambda: False)():
            self._lines = [Bar(bar_format="{desc}", leave=False, **options) for _ in range(2)]

    def add(self, request: Request, answer: Answer) -> None:
        """Count the answer of a request, and say what is due."""
        self.figures.add(answer, _host(request, answer))
        self._answered += 1
        now = self._clock()
        if now - self._shown >= _REFRESH_S:
            self._shown = now
            self._show(now)
        self._bar.update()
        if self._answered == RECENT and self._rest is not None and self._rest > RECENT:
            took = now - self._began
            self._say("fetch: " + figure.estimate(self.figures, took, self._rest, self._config))
        if self._answered % _EVERY == 0 and self._answered >= RECENT:
            self._warn()

    def __enter__(self) -> Monitor:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._show(self._clock())
        for bar in [*reversed(self._lines), self._bar]:
            bar.close()
        if kind is None and self._answered >= _LEAST:
            self._warn()

    def _show(self, now: float) -> None:
        """Bring the texts up to date; the bars decide when they are shown."""
        texts = [
            figure.stored_line(self.figures, now - self._began),
            figure.errors_line(self.figures.states),
            figure.slowest_line(self.figures),
        ]
        if self._lines:
            for bar, text in zip(self._lines, texts[1:], strict=True):
                bar.set_description_str(text)
            del texts[1:]
        self._bar.set_postfix_str("; ".join(text for text in texts if text), refresh=False)

    def _warn(self) -> None:
        """Once for each cause."""
        name = figure.cause(self.figures)
        if name is not None and name not in self._warned:
            self._warned.add(name)
            self._say("warning: " + figure.diagnosis(self.figures, name, self._config))

    def _say(self, text: str) -> None:
        Bar.write(text, file=self._file)


def _host(request: Request, answer: Answer) -> str:
    """The host that answered, as it is shown; "" if the address has none.

    It is one that was understood, so that no control character and no password of the table is shown.
    """
    name = answer.host or host_of(request.url) or ""
    return name.removesuffix(":80").removesuffix(":443")[:_LETTERS]
