"""The retrainings of a series, one after the other, from its history and from the runs that are there."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from curate.run.datasets import run_of
from evaluate.evaluators import descriptions
from evaluate.results import BASE_KEPT, NOT_MEASURED, Metric
from workflows.retraining.record import OUTCOMES, Record
from workflows.retraining.series import Current, Entry, Series

RUNNING = "not ended"  # the outcome of a retraining that was started
HELDOUT = ("test_change", "heldout_change")  # the first that was measured is shown
PROMPTS = "clip_kept"
PAGES = {
    "retraining": "retrain.html",
    "curation": "curate/report.html",
    "evaluation": "evaluate/report.html",
}
CURATION_OF = "curation of "  # and the name of a data set, of several


@dataclass(frozen=True, slots=True)
class Retraining:
    """One of them.

    Attributes:
        run: the name of its folder, which may be deleted.
        when: it ended or, if it has not, started; UTC, ISO 8601.
        outcome: one of ``record.OUTCOMES``, or ``RUNNING``.
        sentence: why it ended so.
        summary: see ``summary.of``.
        is_current: whether it is in use.
        pages: its reports that are there, by name, relative to ``run.root``.
    """

    run: str
    when: str
    outcome: str
    sentence: str
    summary: dict[str, Any] = field(default_factory=dict)
    is_current: bool = False
    pages: dict[str, str] = field(default_factory=dict)

    @property
    def data(self) -> dict[str, Any]:
        """Pairs and pictures; empty where nothing was curated."""
        return self.summary.get("data", {})

    @property
    def evaluation(self) -> dict[str, Any]:
        """Verdict, gate and metrics; empty where nothing was judged."""
        return self.summary.get("evaluation", {})

    def metric(self, *names: str) -> tuple[str, Metric]:
        """The first of these metrics that was measured, and its name; of none, the first, with the reason."""
        found = self.evaluation.get("metrics", {})
        metrics = {name: Metric(**found[name]) for name in names if name in found}
        measured = ((n, metric) for n, metric in metrics.items() if metric.value is not None)
        return next(measured, (names[0], metrics.get(names[0], Metric(reason=NOT_MEASURED))))

    def shown(self, *names: str) -> str:
        """The same as it is printed, the value before its interval; "–" where none was measured."""
        name, metric = self.metric(*names)
        if metric.reason.startswith(BASE_KEPT):
            return BASE_KEPT
        return "–" if metric.value is None else descriptions()[name].shown(metric)


@dataclass(frozen=True, slots=True)
class Timeline:
    """A series as a page or a table shows it.

    Attributes:
        root: the folder of all runs. name: of the series.
        current: the run in use; None before the first promotion.
        retrainings: the earliest first.
        by_hand: promotions and returns that somebody typed, the earliest first.
    """

    root: str
    name: str
    current: Current | None
    retrainings: tuple[Retraining, ...]
    by_hand: tuple[Entry, ...]

    @property
    def export(self) -> str:
        """The folder to load of the run in use; "" for none."""
        return f"{self.root}/{self.current.export}" if self.current and self.current.export else ""

    @property
    def last(self) -> Retraining | None:
        """The latest retraining that ended."""
        ended = [each for each in self.retrainings if each.outcome != RUNNING]
        return ended[-1] if ended else None

    def as_json(self) -> dict[str, Any]:
        """The same as JSON values."""
        return {
            "series": self.name,
            "current": asdict(self.current) if self.current else None,
            "retrainings": [asdict(each) for each in self.retrainings],
            "by_hand": [asdict(each) for each in self.by_hand],
        }


def of(series: Series) -> Timeline:
    """Read a series.

    Raises:
        UserError: the file that says which run is in use, or a run's record, is damaged.
    """
    current, history = series.current(), series.history()
    in_use = current.run if current else ""
    found = {
        entry.run: Retraining(
            entry.run, entry.when, entry.event, entry.sentence, entry.summary, entry.run == in_use
        )
        for entry in history
        if entry.event in OUTCOMES
    }
    records = {record.run: record for record in series.records()}
    for record in records.values():
        if record.run not in found:  # not ended, or killed before its line was written
            found[record.run] = Retraining(
                record.run,
                record.ended or record.started,
                record.outcome or RUNNING,
                record.sentence,
                record.summary,
                record.run == in_use,
            )
    ordered = sorted(found.values(), key=lambda each: int(each.run.rpartition("-")[2]))
    by_hand = tuple(entry for entry in history if entry.event not in OUTCOMES)
    shown = tuple(_with_pages(series.root, each, records.get(each.run)) for each in ordered)
    return Timeline(str(series.root), series.name, current, shown, by_hand)


def _with_pages(root: Path, each: Retraining, record: Record | None) -> Retraining:
    paths = {name: f"{each.run}/{path}" for name, path in PAGES.items()}
    for name in record.datasets if record else ():
        paths[f"{CURATION_OF}{name}"] = f"{run_of(each.run, name)}/{PAGES['curation']}"
    present = {name: path for name, path in paths.items() if (root / path).is_file()}
    values = (each.run, each.when, each.outcome, each.sentence, each.summary, each.is_current)
    return Retraining(*values, present)
