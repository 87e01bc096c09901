"""The curations of a run: its own or, of several data sets, one of each, in runs beside it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from curate.run.datasets import run_of
from workflows.retraining import several


@dataclass(frozen=True, slots=True)
class Curation:
    """One of them.

    Attributes:
        dataset: the name of its data set; "" where there is only one.
        run_dir: of the run that holds it.
    """

    dataset: str
    run_dir: Path

    @property
    def folder(self) -> Path:
        """Where it is."""
        return self.run_dir / "curate"

    @property
    def step(self) -> str:
        """What the step that makes it is called, and the section of its settings."""
        return several.section_of(self.dataset)

    @property
    def diff(self) -> str:
        """What the step that compares it with the promoted run's is called."""
        return f"diff {self.dataset}".rstrip()

    @property
    def kind(self) -> str:
        """Of the inputs that it reads, see ``input_files.Root``."""
        return kind_of(self.step)


def kind_of(section: str) -> str:
    """The kind of the files that a section's settings name.

    >>> kind_of("curate"), kind_of("curate photos"), kind_of("train")
    ('data', 'data photos', 'model')
    """
    command, blank, dataset = section.partition(" ")
    kinds = {"curate": "data", "train": "model", "evaluate": "evaluation"}
    return f"{kinds[command]}{blank}{dataset}"


def of(run_dir: Path, datasets: Iterable[str]) -> list[Curation]:
    """Those of a run, in the order in which they are made.

    Args:
        run_dir: of the run; it need not exist.
        datasets: the names; none where there is only one.
    """
    names = sorted(datasets)
    beside = [Curation(name, run_dir.with_name(run_of(run_dir.name, name))) for name in names]
    return beside or [Curation("", run_dir)]


def pairs(now: Iterable[Curation], before: Iterable[Curation]) -> list[tuple[Curation, Curation]]:
    """Those of the same data set."""
    known: Mapping[str, Curation] = {each.dataset: each for each in before}
    return [(each, known[each.dataset]) for each in now if each.dataset in known]
