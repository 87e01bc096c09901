"""What a retraining writes down of itself: ``retrain.json`` in its run's folder."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from curate.run.datasets import run_of
from curate.run.files import read_json, write_certified
from curate.run.finished import RECORD
from curate.run.schema import UserError
from workflows.retraining import curations
from workflows.retraining.curations import Curation

VERSION = 1
OUTCOMES = ("promoted", "rejected", "undecided", "abandoned")
"""How a retraining ends. ``abandoned``: settings changed before it was judged, and another one took its place."""


@dataclass(frozen=True, slots=True)
class Change:
    """One difference from the last retraining that ended.

    Attributes:
        kind: ``data``, ``setting``, ``code``, ``package``, ``model``, ``removal`` or ``first``: there was none.
        what: the file, the setting or the package; of many files of one kind, a sentence that counts them.
        before, now: its value; "" where there is or was none.
    """

    kind: str
    what: str
    before: str = ""
    now: str = ""

    def sentence(self) -> str:
        """In words.

        >>> Change("setting", "train: optim.lr", "1e-4", "1e-5").sentence()
        'train: optim.lr: 1e-4, now 1e-5'
        """
        if self.before and self.now:
            return f"{self.what}: {self.before}, now {self.now}"
        return (
            f"{self.what}: {self.now or f'{self.before}, now gone'}"
            if self.before or self.now
            else self.what
        )


@dataclass(frozen=True, slots=True)
class Step:
    """One command of a retraining that came to its end.

    Attributes:
        started, ended: UTC, ISO 8601; of a step that was interrupted, of its last start.
        exit_code: of the command.
    """

    started: str
    ended: str
    exit_code: int


@dataclass(frozen=True, slots=True)
class Record:
    """Everything that is known of one retraining; written again after each step.

    Attributes:
        series: its name. number: the run's in the series, from 1.
        arguments: of the command line, as typed, without secrets.
        started, ended: UTC, ISO 8601; ``ended`` is "" until it has an outcome.
        inputs: digest of all it is made from.
        changes: what made it start.
        provenance: revision of the code, Python and package versions.
        start_from: the run whose export the training began with; "" is the base model.
        compared_with: the run that was promoted then; "" where there was none.
        datasets: the weights of several data sets, by name; not in the file where there is only one.
        steps: by name: ``curate``, ``diff``, ``finetune``, ``evaluate``; of several data sets ``curate NAME`` each.
        outcome: one of ``OUTCOMES``; "" until then.
        sentence: why it ended so, for a person.
        kept: step whose weights the export holds, 0 where the base is to be kept; -1 until it is judged.
        export: folder of that checkpoint's export, relative to the run; "" for none.
        summary: figures for the history, which stay when the run's folder is deleted, see ``summary.of``.
    """

    series: str
    number: int
    arguments: tuple[str, ...] = ()
    started: str = ""
    ended: str = ""
    inputs: str = ""
    changes: tuple[Change, ...] = ()
    provenance: dict[str, Any] = field(default_factory=dict)
    start_from: str = ""
    compared_with: str = ""
    datasets: dict[str, float] = field(default_factory=dict)
    steps: dict[str, Step] = field(default_factory=dict)
    outcome: str = ""
    sentence: str = ""
    kept: int = -1
    export: str = ""
    summary: dict[str, Any] = field(default_factory=dict)

    @property
    def run(self) -> str:
        """The name of the run's folder."""
        return run_name(self.series, self.number)

    def curations(self, root: Path) -> list[Curation]:
        """Of the run, whose folder is below ``root``."""
        return curations.of(root / self.run, self.datasets)

    def data(self) -> list[str]:
        """What says to a training which curations it stands on; nothing where that is its own.

        >>> Record("mine", 3, datasets={"own": 1.0, "photos": 0.3}).data()
        ['data.runs={mine-0003-own: 1.0, mine-0003-photos: 0.3}']
        """
        weights = [f"{run_of(self.run, name)}: {each}" for name, each in self.datasets.items()]
        return [f"data.runs={{{', '.join(weights)}}}"] if weights else []

    def with_step(self, name: str, step: Step) -> Record:
        """The same with one more step."""
        return replace(self, steps={**self.steps, name: step})

    def without_steps(self, names: Collection[str]) -> Record:
        """The same as if some steps were yet to be done."""
        left = {name: step for name, step in self.steps.items() if name not in names}
        return replace(self, steps=left)

    def save(self, run_dir: Path) -> None:
        """Write ``retrain.json`` into a run's folder."""
        content = {"version": VERSION, **asdict(self)}
        if not self.datasets:
            del content["datasets"]
        write_certified(run_dir / RECORD, content)

    @classmethod
    def load(cls, run_dir: Path) -> Record | None:
        """Of a run's folder; None where no retraining made it.

        Raises:
            UserError: the file is damaged, or of a later version.
        """
        path = run_dir / RECORD
        if not path.is_file():
            return None
        content = read_json(path, sealed=True)
        if content is None or content.pop("version", None) != VERSION:
            raise UserError(
                f"{path} is damaged, or was written by another version; restore it from a backup, or delete the "
                f"folder {run_dir}, which the next retraining then makes again"
            )
        content["arguments"] = tuple(content["arguments"])
        content["changes"] = tuple(Change(**change) for change in content["changes"])
        content["steps"] = {name: Step(**step) for name, step in content["steps"].items()}
        return cls(**content)


def run_name(series: str, number: int) -> str:
    """The name of a run of a series.

    >>> run_name("mine", 12)
    'mine-0012'
    """
    return f"{series}-{number:04d}"


def now() -> str:
    """This second, UTC, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")
