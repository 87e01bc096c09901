"""A series whose commands are fake: each leaves what the real one would, in milliseconds."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

import curate.pipeline.config  # (these register which keys are paths)
import evaluate.config
import finetune.config
from curate.run import checksums, ledger, provenance
from curate.run.files import remove_parts, write_json, write_text
from curate.run.manifest import Manifest, write_manifest
from curate.run.removals import read_removals
from curate.run.schema import Busy, UserError
from evaluate import results
from evaluate.results import Check
from tests.curate import small_ledgers
from tests.evaluate.conftest import results as results_fixture
from workflows import retrain
from workflows.retraining import commands, comparison, inputs, job, several, steps
from workflows.retraining.commands import Settings
from workflows.retraining.config import RetrainConfig, SeriesConfig
from workflows.retraining.input_files import Root
from workflows.retraining.outcome import Outcome
from workflows.retraining.series import Series

JUDGED = results_fixture.__wrapped__()
EXIT = {"passed": 0, "warned": 0, "failed": 1, "undecided": 3}
TYPED = ["experiment=mine.yaml"]


def digest(key: str) -> str:
    """Stands for the hash of a picture's file; keys with the same letters are copies."""
    return f"{sum(map(ord, key)):064x}"


def sides(keys: Sequence[str], held_out: Collection[str] = ()) -> dict[str, str]:
    """Every fourth picture is held out, and those whose file was before."""
    return {
        key: "val" if place % 4 == 0 or digest(key) in held_out else "train"
        for place, key in enumerate(keys)
    }


def curation(folder: Path, keys: Sequence[str], held_out: Collection[str] = ()) -> None:
    """A ledger and a manifest without shards."""
    rows = pd.DataFrame(
        {name: [""] * len(keys) for name in ledger.COLUMNS}
        | {
            "key": [*keys],
            "kept": True,
            "status": "kept",
            "sha256": [*map(digest, keys)],
            "split": [*sides(keys, held_out).values()],
        }
    )
    small_ledgers.write(folder / "ledger", rows)
    totals = {"pairs_in": len(keys), "kept": len(keys), "dropped": 0, "unreadable": 0}
    write_manifest(folder, Manifest((), totals, {}, "png"))


class Commands:
    """Stands in for ``steps.run``.

    Attributes:
        ran: a word for each command that was started, with the run.
        gate, kept: of the evaluations from now on.
        ends: exit codes of commands that leave nothing, by that word.
    """

    def __init__(self, root: Path, pictures: Path) -> None:
        self.root, self.pictures = root, pictures
        self.ran: list[str] = []
        self.lines: list[list[str]] = []
        self.gate, self.kept, self.exported = "passed", 450, 450
        self.ends: dict[str, int] = {}
        self.before: dict[str, Callable[[], None]] = {}
        self.ledger = True  # whether curations leave one, which takes most of the time
        self.held_out = lambda path: {*pd.read_parquet(path)["sha256"]}

    def run(self, command: Sequence[str], lock: int | None, environment: dict[str, str]) -> int:
        """Leave what a command does."""
        assert lock is not None
        word = {"curate": "curate", "evaluate": "evaluate"}
        name = "diff" if "curate.diff" in command else word.get(command[2], "finetune")
        given = dict(text.split("=", 1) for text in command if "=" in text)
        own = {"diff": command[-1]}
        run_dir = Path(own[name]) if name in own else Path(given["run.root"], given["run.name"])
        self.ran.append(f"{name} {run_dir.name}")
        self.lines.append([*command])
        self.before.get(name, lambda: None)()
        if name in self.ends:
            return self.ends[name]
        remove_parts(run_dir / name)  # as the stages do under their locks
        return getattr(self, f"_{name}")(run_dir, given) or 0

    def _curate(self, run_dir: Path, given: Mapping[str, str]) -> None:
        out = read_removals(run_dir / "curate").keys
        pictures = Path(given.get("dataset.root", str(self.pictures)).strip("'"))
        keys = sorted({path.stem for path in pictures.glob("*.png")} - out)
        table = given.get("split.held_out")
        held_out = self.held_out(Path(table)) if table else set[str]()
        if self.ledger:
            curation(run_dir / "curate", keys, held_out)
        else:
            content = {"keys": keys, "sides": sides(keys, held_out)}
            write_json(run_dir / "curate" / "manifest.json", content)

    def _finetune(self, run_dir: Path, given: Mapping[str, str]) -> None:
        weights = yaml.safe_load(given.get("data.runs", "{}")) or {run_dir.name: 1}
        folders = [run_dir.with_name(name) / "curate" for name in weights]
        text = "".join((folder / "manifest.json").read_text() for folder in folders)
        write_text(
            run_dir / "finetune" / "export" / "weights.safetensors",
            text + given.get("method.init", ""),
        )

    def _evaluate(self, run_dir: Path, given: Mapping[str, str]) -> int:
        found = replace(
            JUDGED,
            run=run_dir.name,
            gate=self.gate,
            verdict=replace(JUDGED.verdict, kept=self.kept, exported=self.exported),
            checks=(
                Check("a_rule", "heldout_change", "upper bound < 0 %", "-6.1 %", self.gate, ""),
            ),
        )
        results.save(found, run_dir / "evaluate" / "report.json")
        checksums.write(run_dir / "evaluate")
        return EXIT[self.gate]

    def _diff(self, run_dir: Path, given: Mapping[str, str]) -> None:
        pass


class Team:
    """Who retrains: pictures, settings, code, and the command."""

    def __init__(self, tmp_path: Path, fake: Commands) -> None:
        self.root, self.pictures, self.code = fake.root, fake.pictures, tmp_path / "code"
        self.commands = fake
        self.series = Series(self.root, "mine")
        self.lr, self.precision = 1.0, "no"
        self.weights: dict[str, float] = {}
        self.pictures.mkdir(parents=True)
        self.add(*"abcd")
        self.code.mkdir()
        (self.code / "module.py").write_text("1")

    def add(self, *names: str, to: str = "") -> None:
        """Pictures with captions, to one of several data sets or to the only one."""
        folder = self.folder(to)
        folder.mkdir(exist_ok=True)
        for name in names:
            (folder / f"{name}.png").write_bytes(name.encode())
            (folder / f"{name}.txt").write_text(f"picture {name}")

    def folder(self, dataset: str) -> Path:
        """Where the pictures of a data set are."""
        return self.pictures.with_name(dataset) if dataset else self.pictures

    def two_sets(self) -> None:
        """From now on the retrainings are of two data sets."""
        self.weights = {"own": 1.0, "photos": 0.3}
        self.add(*"abcd", to="own")
        self.add(*"klmn", to="photos")

    @property
    def settings(self) -> Settings:
        """As composed from an experiment."""
        folders = {several.section_of(name): self.folder(name) for name in self.weights or ("",)}
        composed: dict[str, dict[str, Any]] = {
            **{
                section: {"dataset": {"reader": "folder", "root": str(folder)}}
                for section, folder in folders.items()
            },
            "train": {"optim": {"lr": self.lr}, "hub": {"token": "not for you"}, "model": {}},
            "evaluate": {"grid": {"items": 3}, "precision": self.precision},
        }
        handed = {
            name: [f"dataset.root={folders[name]}"] if name in folders and self.weights else []
            for name in composed
        }
        return Settings("", handed, composed, (), weights=self.weights)

    @contextmanager
    def opened(self, **config: Any):
        """The job of one start."""
        run = SeriesConfig(str(self.root), "mine")
        settings = RetrainConfig(run=run, **config)
        with job.opened(settings, self.settings, self.series) as found:
            yield found

    def retrain(self, **config: Any) -> Outcome:
        """One start."""
        with self.opened(**config) as found:
            return found.why() if config.get("why") else retrain.retrain(found)

    def current(self) -> str | None:
        """The promoted run's name."""
        found = self.series.current()
        return found.run if found else None

    def events(self) -> list[tuple[str, str, str]]:
        """The history without its times."""
        return [(entry.event, entry.run, entry.current) for entry in self.series.history()]

    def runs(self) -> list[str]:
        """The folders of runs."""
        return sorted(path.name for path in self.root.glob("*") if path.name != "mine-series")


@pytest.fixture
def team(tmp_path, monkeypatch) -> Team:
    fake = Commands(tmp_path / "runs", tmp_path / "pictures")
    monkeypatch.setattr(steps, "run", fake.run)
    # fake evaluations leave no losses of pictures
    monkeypatch.setattr(comparison, "examine_pictures", lambda promoted, run_dir: "")
    monkeypatch.setattr(provenance, "_revision", lambda: "1234")
    packages = {name: f"{number}.0" for number, name in enumerate(provenance.PACKAGES)}
    monkeypatch.setattr(provenance, "_version", packages.get)
    found = Team(tmp_path, fake)
    code = Root("code", str(found.code), "the code", (".py",))
    monkeypatch.setattr(inputs, "_code", lambda: iter([code]))
    commands.remember(TYPED, {})
    yield found
    commands.remember([], {})


SCHEMAS = (curate.pipeline.config, evaluate.config, finetune.config)
__all__ = ["SCHEMAS", "TYPED", "Busy", "Commands", "Team", "UserError"]
