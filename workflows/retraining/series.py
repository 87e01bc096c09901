"""A series: the runs that one experiment was retrained into, which of them is promoted, and what happened.

``<run.root>/<name>-series/`` beside the runs ``<name>-0001``, ``<name>-0002``, …:

``current.json``
    the promoted run; the only file that says so, replaced whole.
``history.jsonl``
    one line for each end of a retraining, promotion by hand and return to an earlier run.
``heldout_keys.parquet``
    the pictures that were ever held out, see ``curate.decide.held_out``.
``registry.json``
    the model registry that follows the promoted run, and what it is known to show, see ``registry``.
``inputs.json``, ``inputs.tsv``
    what the last retraining was made from, for the quick look, see ``unchanged``.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from curate.run.files import read_json, remove_parts, write_certified, write_text
from curate.run.finished import RECORD
from curate.run.locks import locked
from curate.run.schema import UserError
from workflows.retraining import curations, numbered
from workflows.retraining.curations import Curation
from workflows.retraining.record import Record, now, run_name

FOLDER = "-series"  # ends the name of a series' own folder
EVENTS = ("promoted", "rejected", "undecided", "abandoned", "promoted by hand", "rolled back")
_MOVING = ("promoted", "promoted by hand", "rolled back")  # those that move the pointer


@dataclass(frozen=True, slots=True)
class Current:
    """The promoted run.

    Attributes:
        run: its name. export: the folder to load, relative to ``run.root``.
        since: UTC, ISO 8601. event: how it came there, one of ``EVENTS``.
        previous: the run that was promoted before; "" for none.
    """

    run: str
    export: str
    since: str
    event: str
    previous: str = ""


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the history.

    Attributes:
        when: UTC, ISO 8601. event: one of ``EVENTS``.
        run: the one it is about. current: the promoted run afterwards; "" for none.
        sentence: for a person. summary: as ``Record.summary``.
    """

    when: str
    event: str
    run: str
    current: str
    sentence: str
    summary: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Series:
    """One by its name below ``run.root``."""

    root: Path
    name: str

    @property
    def folder(self) -> Path:
        """Of the series itself."""
        return self.root / f"{self.name}{FOLDER}"

    def run_dir(self, run: str) -> Path:
        """Of one of its runs."""
        return self.root / run

    def numbers(self) -> list[int]:
        """Of the runs whose folders are there, the earliest first."""
        return list(numbered.folders(self.root, self.name))

    def curations(self) -> dict[str, list[Curation]]:
        """Of the runs whose folders are there, by run, the earliest first."""
        found: dict[str, list[Curation]] = {}
        for name in (run_name(self.name, number) for number in self.numbers()):
            record = Record.load(self.run_dir(name))
            found[name] = curations.of(self.run_dir(name), record.datasets if record else ())
        return found

    def records(self) -> list[Record]:
        """What is known of the runs whose folders are there, the earliest first."""
        found = (Record.load(self.run_dir(run_name(self.name, n))) for n in self.numbers())
        return [record for record in found if record]

    def next_number(self) -> int:
        """One that no run had, nor one that was deleted."""
        past = [int(entry.run.rpartition("-")[2]) for entry in self.history()]
        return max([0, *past, *self.numbers()]) + 1

    def part(self, run: str) -> Path:
        """Where a run is while it is made or deleted; what is left there is no run."""
        return self.root / f".{run}.part"

    @contextmanager
    def locked(self, option: str = "run.name") -> Iterator[int | None]:
        """Lock the series against other writers, and delete what killed ones left; see ``locks.locked``."""
        with locked(self.folder, option) as lock:
            self._remove_parts()
            yield lock

    def _remove_parts(self) -> None:
        remove_parts(self.folder)
        for path in numbered.folders(self.root, f".{self.name}", ".part").values():
            self.remove_part(path)
        for number in self.numbers()[-1:]:
            for path in self.run_dir(run_name(self.name, number)).glob(".*.part"):
                if path.is_file():
                    path.unlink()

    def remove_part(self, part: Path) -> None:
        """Delete what was moved aside of a run, and the curations of its data sets, which go with it."""
        run = part.name.removeprefix(".").removesuffix(".part")
        datasets = (read_json(part / RECORD, sealed=True) or {}).get("datasets", ())
        for each in curations.of(self.run_dir(run), datasets):
            if each.dataset and each.run_dir.is_dir():
                each.run_dir.rename(part / each.run_dir.name)
        shutil.rmtree(part)

    # The promoted run

    def current(self) -> Current | None:
        """The promoted run; None where none was promoted yet.

        Raises:
            UserError: the file that says so is damaged.
        """
        path = self.folder / "current.json"
        if not path.is_file():
            return None
        content = read_json(path, sealed=True)
        if content is None:
            raise UserError(
                f"{path} is damaged; type python -m workflows.promote RUN with the run to use, which writes it again"
            )
        return Current(**content)

    def point_to(self, current: Current) -> None:
        """Make a run the promoted one, in one step."""
        write_certified(self.folder / "current.json", asdict(current))

    # What happened

    def history(self) -> list[Entry]:
        """All lines, the earliest first.

        Raises:
            UserError: a line is damaged.
        """
        path = self.folder / "history.jsonl"
        if not path.is_file():
            return []
        found = []
        for number, line in enumerate(path.read_bytes().split(b"\n"), 1):
            try:
                found += [Entry(**json.loads(line))] if line else []
            except (ValueError, TypeError) as error:
                raise UserError(
                    f"{path}, line {number} is damaged; restore the file from a backup, or delete that line"
                ) from error
        return found

    def has_ended(self, run: str, event: str) -> bool:
        """Whether the history has a line of an event of a run."""
        return any((entry.run, entry.event) == (run, event) for entry in self.history())

    def untold(self) -> Current | None:
        """What moved the pointer last, where a killed process left the history without its line."""
        current = self.current()
        moves = [(each.event, each.run) for each in self.history() if each.event in _MOVING]
        if current is None or (moves and moves[-1] == (current.event, current.run)):
            return None
        return current

    def add(
        self, event: str, run: str, sentence: str, summary: dict[str, Any] | None = None
    ) -> None:
        """Append to the history; the file is replaced whole."""
        current = self.current()
        entry = Entry(now(), event, run, current.run if current else "", sentence, summary or {})
        lines = [json.dumps(asdict(each), sort_keys=True) for each in [*self.history(), entry]]
        write_text(self.folder / "history.jsonl", "\n".join(lines) + "\n")


def all_of(root: Path) -> list[Series]:
    """The series below a folder, by name."""
    folders = sorted(root.glob(f"*{FOLDER}"))
    return [Series(root, path.name.removesuffix(FOLDER)) for path in folders if path.is_dir()]


def series_of(run_dir: Path) -> Series | None:
    """The series that a run belongs to; None where no retraining made the run."""
    record = Record.load(run_dir)
    return Series(run_dir.parent, record.series) if record else None
