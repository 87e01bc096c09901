"""How one start of a retraining ended: what it prints, and its exit code."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from curate.run.cli import EXIT_FAILED
from curate.run.finished import RECORD
from curate.run.schema import Busy
from workflows.retraining import notify, numbered, steps
from workflows.retraining.config import RetrainConfig
from workflows.retraining.series import Series

EXIT_REJECTED, EXIT_UNDECIDED = 1, 3


@dataclass(frozen=True, slots=True)
class Outcome:
    """What ``--json`` prints.

    Attributes:
        outcome: ``promoted``, ``rejected``, ``undecided``; ``nothing_to_do``; ``started``: not all steps were asked
            for; ``would_start``: of ``--why``; ``failed``, ``busy``, ``interrupted``.
        run: its name; None where none was made. current: the promoted run.
        sentence: for a person.
        report: the path of its report.
        changes: what started it, in words.
    """

    outcome: str
    sentence: str
    run: str | None = None
    current: str | None = None
    report: str | None = None
    changes: tuple[str, ...] = ()

    def content(self) -> dict[str, Any]:
        """The same as JSON has it."""
        return {**asdict(self), "changes": list(self.changes)}

    def say(self, as_json: bool) -> None:
        """Print it: a sentence, and where asked for a last line of JSON."""
        words = self.outcome.replace("_", " ")
        said = self.sentence.startswith(words)
        print(self.sentence if said else f"{words:9} {self.sentence}")
        if self.report:
            print(f"report    {self.report}")
        if self.current:
            print(f"in use    {self.current}")
        if as_json:
            print(json.dumps(self.content(), sort_keys=True))

    def exit_code(self, fail_on_reject: bool) -> int:
        """Of a retraining that came to its end."""
        if self.outcome == "undecided":
            return EXIT_UNDECIDED
        return EXIT_REJECTED if self.outcome == "rejected" and fail_on_reject else 0


def nothing_to_do(root: Path, series: str) -> Outcome:
    """Of a series of which nothing changed; reads its last judged run's and the promoted run's files."""
    last = _last(root, series)
    run, ended = last.get("run"), str(last.get("ended", ""))
    how = f" (it was {last.get('outcome')})" if last else ""
    return Outcome(
        "nothing_to_do",
        f"nothing to do since {ended.replace('T', ' ').removesuffix('+00:00')} UTC, when {run} ended{how}: no file, "
        "setting, code or package changed",
        None,
        _current(root, series),
        _report(root, run),
    )


@dataclass
class Report:
    """Who hears how a start ended."""

    config: RetrainConfig
    series: Series | None = None

    def on(self, series: Series) -> None:
        """Name the series as soon as it is known."""
        self.series = series

    def say(self, outcome: Outcome) -> None:
        """Print it, and send it to whom the settings name."""
        outcome.say(self.config.json)
        if not self.config.why:
            notify.tell(self.config.notify, outcome.content(), _warn)

    def failed(self, word: str, error: BaseException) -> None:
        """The same for a start that came to no end; what went wrong is printed by who catches it."""
        current = _current(self.series.root, self.series.name) if self.series else None
        outcome = Outcome(word, str(error) or word, None, current)
        if self.config.json:
            print(json.dumps(outcome.content(), sort_keys=True), flush=True)
        if word == "failed":
            notify.tell(self.config.notify, outcome.content(), _warn)


@contextmanager
def reported(config: RetrainConfig) -> Iterator[Report]:
    """Report what ends the block by an exception; a failed step ends the program with 70."""
    report = Report(config)
    try:
        yield report
    except Busy as error:
        report.failed("busy", error)
        raise
    except KeyboardInterrupt as error:
        report.failed("interrupted", error)
        raise
    except steps.Failed as error:
        print(f"error: {error}", file=sys.stderr)
        report.failed("failed", error)
        sys.exit(EXIT_FAILED)
    except Exception as error:
        report.failed("failed", error)
        raise


def _warn(text: str) -> None:
    print(text, file=sys.stderr)


def _last(root: Path, series: str) -> dict[str, Any]:
    for folder in reversed(numbered.folders(root, series).values()):
        if (known := _json(folder / RECORD)).get("outcome") not in (None, "", "abandoned"):
            return {"run": folder.name, **known}
    return {}


def _current(root: Path, series: str) -> str | None:
    return _json(root / f"{series}-series" / "current.json").get("run")


def _report(root: Path, run: str | None) -> str | None:
    path = root / str(run) / "retrain.html"
    return str(path) if path.is_file() else None


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
