"""The planted trainings: how each is made with the product's commands, and what the product has to say of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evaluate.metrics.copying import MARGIN
from evaluate.selftest import commands
from evaluate.selftest.planting import thin_out
from workflows.bench import twins

FEW = 72  # training pictures, of the run that learns them by heart
_DEMO = "experiment=demo"
_AS_TRAINED = "export.scale=1"  # what was planted is in all of the update
_SHORT = ("heldout.every=1200", "checkpoint.every=1200")
_JUDGED = (0, 1, 3)  # exit codes of an evaluation that came to an end
HEALTHY = ("improving", "slowing", "converged")


@dataclass(frozen=True, slots=True)
class Found:
    """What the product said of one run.

    Attributes:
        headline: the sentences of its headline, or what it refused with.
        values: cells of the table by column, see ``verdicts.COLUMNS``.
        wrong: what is not as it has to be; nothing is missing if there is none.
    """

    headline: str
    values: dict[str, str]
    wrong: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Planting:
    """Where the runs of one seed are made.

    Attributes:
        root: ``run.root`` of all commands. seed: of the data, of the split and of the training.
    """

    root: Path
    seed: int

    def name(self, run: str) -> str:
        """The name of a run."""
        return f"{run}-{self.seed}"

    def folder(self, run: str) -> Path:
        """Of a run."""
        return self.root / self.name(run)

    def command(
        self, module: str, run: str, *settings: str, expected: tuple[int, ...] | None = (0,)
    ) -> commands.Done:
        """A command of the product on a run."""
        log = self.root / f"{self.name(run)}.log"
        where = (f"run.root={self.root}", f"run.name={self.name(run)}")
        return commands.run(log, module, *settings, *where, expected=expected)

    def curate(self, run: str, *settings: str) -> None:
        """Curate, unless that is done."""
        if not (self.folder(run) / "curate" / "manifest.json").is_file():
            seeds = (f"split.seed={self.seed}",)
            self.command(commands.CURATE, run, *settings, *seeds)

    def curate_demo(self, run: str, *settings: str) -> None:
        """Curate the demo's pictures; the seed also says which captions are wrong."""
        self.curate(run, _DEMO, f"dataset.seed={self.seed}", *settings)


@dataclass(frozen=True, slots=True)
class Training:
    """A planted training.

    Attributes:
        planted: what was planted. expected: what has to be said.
        settings: of the training, beside those of the demo.
        curation: makes the data of a run, and returns the name of the run that has them.
        right: what of a report is not as expected; see ``Report``.
        refused: a word of the refusal with which a training with the default settings has to end; "" for none.
    """

    planted: str
    expected: str
    settings: tuple[str, ...]
    curation: Callable[[Planting, str], str]
    right: Callable[[Report], list[str]]
    refused: str = ""

    def run(self, planting: Planting, name: str) -> Found:
        """Curate, train and judge, or go on where that was interrupted."""
        data = self.curation(planting, name)
        where = () if data == planting.name(name) else (f"data.run={data}",)
        train = (_DEMO, _AS_TRAINED, f"train.seed={planting.seed}", *self.settings, *where)
        wrong = []
        if self.refused:
            train, wrong = (*train, "doctor.captions=off"), self._refusal(planting, name, train)
        planting.command(commands.TRAIN, name, *train)
        # What takes minutes and is no part of the table is left out.
        judge = (_DEMO, "samples.clip_captions=48", "reconsider.pictures=0")
        done = planting.command(commands.EVALUATE, name, *judge, expected=_JUDGED)
        report = Report.read(planting.folder(name), done.code)
        return Found(report.headline, report.values(), (*wrong, *self.right(report)))

    def _refusal(self, planting: Planting, name: str, train: tuple[str, ...]) -> list[str]:
        """What is wrong with the refusal of a training, which is tried under another name."""
        refused = f"{name}-refused"
        data = (
            ()
            if any(s.startswith("data.run=") for s in train)
            else (f"data.run={planting.name(name)}",)
        )
        done = planting.command(commands.TRAIN, refused, *train, *data, expected=None)
        if done.code == 2 and self.refused in done.error:
            return []
        return [f"the training was not refused for its {self.refused} (exit code {done.code})"]


@dataclass(frozen=True, slots=True)
class Report:
    """``report.json`` of a run, and the exit code of its evaluation."""

    content: dict[str, Any]
    code: int

    @classmethod
    def read(cls, run: Path, code: int) -> Report:
        """Of a run's folder."""
        path = run / "evaluate" / "report.json"
        return cls(json.loads(path.read_text(encoding="utf-8")), code)

    @property
    def word(self) -> str:
        """The verdict's."""
        return self.content["verdict"]["word"]

    @property
    def kept(self) -> int:
        """The step to keep; 0 is the base."""
        return self.content["verdict"]["kept"]

    @property
    def last(self) -> int:
        """The last step."""
        return self.content["verdict"]["last"]

    @property
    def gate(self) -> str:
        """Its state."""
        return self.content["gate"]

    @property
    def headline(self) -> str:
        """Result, trend and costs in sentences."""
        return " ".join(finding["text"] for finding in self.content["findings"])

    def costs(self) -> list[str]:
        """Sentences on what the run cost; none on what it did not."""
        found = self.content["findings"]
        return [
            each["text"] for each in found if each["part"] == "cost" and each["state"] != "good"
        ]

    def check(self, name: str) -> str:
        """The status of a rule of the gate; "" where there is no such rule."""
        found = (check["status"] for check in self.content["checks"] if check["name"] == name)
        return next(found, "")

    def metric(self, name: str) -> dict[str, Any]:
        """A metric of the report."""
        return self.content["metrics"].get(name, {"value": None})

    def shown(self, name: str, scale: float = 1.0, digits: int = 2) -> str:
        """A metric with its interval, or a dash."""
        metric = self.metric(name)
        if metric["value"] is None:
            return "–"
        value = f"{scale * metric['value']:+.{digits}f}"
        if metric.get("low") is None:
            return value
        return (
            f"{value} [{scale * metric['low']:+.{digits}f}, {scale * metric['high']:+.{digits}f}]"
        )

    def values(self) -> dict[str, str]:
        """The cells of the table."""
        return {
            "verdict": self.word,
            "gate": self.gate,
            "kept": f"step {self.kept} of {self.last}" if self.kept else "base",
            "held-out loss, %": self.shown("heldout_change", 100, 1),
            "caption fit": self.shown("caption_fit_exported"),
            "loss on the base's pictures, %": self.shown("retention_loss_change", 100, 0),
            "copying": self.shown("copying_exported"),
            "prompt following": self.shown("clip_change"),
        }


# Data


def _shared(planting: Planting, _: str) -> str:
    """The demo's, made once for a seed."""
    planting.curate_demo("curated")
    return planting.name("curated")


def _few(planting: Planting, name: str) -> str:
    """The demo's with few of the training pictures."""
    if not (planting.folder(name) / "curate" / "manifest.json").is_file():
        data = _shared(planting, name)
        log = planting.root / f"{planting.name(name)}.log"
        thin_out(planting.root / data, planting.folder(name), FEW, planting.seed, log)
    return planting.name(name)


def _wrong(share: float) -> Callable[[Planting, str], str]:
    """The demo's with another picture's caption for a share of them, and no filter that drops those."""

    def made(planting: Planting, name: str) -> str:
        planting.curate_demo(name, f"dataset.mismatch={share}", "filters=none")
        return planting.name(name)

    return made


# What has to be said


def _healthy(report: Report) -> list[str]:
    wrong = [] if report.word in HEALTHY else [f"the verdict is {report.word}"]
    if report.gate not in ("passed", "warned"):
        wrong.append(f"the gate is {report.gate}")
    if not report.kept:
        wrong.append("the base is kept")
    if report.check("follows_captions") == "warned" and not report.costs():
        wrong.append("the headline tells no cost")
    return wrong


def _learnt_by_heart(report: Report) -> list[str]:
    wrong = [] if report.word == "overfitting" else [f"the verdict is {report.word}"]
    if report.kept == report.last:
        wrong.append("the last step is kept")
    low = report.metric("copying").get("low")
    if report.kept and (low is None or low > MARGIN):
        wrong.append("the step that is kept copies, or copying was not measured")
    return wrong


def _without_effect(report: Report) -> list[str]:
    wrong = [] if report.word == "no_effect" else [f"the verdict is {report.word}"]
    return wrong + _refuses(report)


def _diverged(report: Report) -> list[str]:
    wrong = [] if report.word == "diverged" else [f"the verdict is {report.word}"]
    if report.last > 4 * 1200 // 32:
        wrong.append(f"the training went on to step {report.last}")
    return wrong + _refuses(report)


def _refuses(report: Report) -> list[str]:
    """Nothing is kept, and the gate fails."""
    wrong = [] if report.kept == 0 else [f"step {report.kept} is kept"]
    return wrong + ([] if report.gate == "failed" else [f"the gate is {report.gate}"])


def _captions(*statuses: str) -> Callable[[Report], list[str]]:
    """The gate's rule on captions has one of these statuses, and the gate is no better."""

    def right(report: Report) -> list[str]:
        status = report.check("captions_matter")
        wrong = [] if status in statuses else [f"the rule on captions says {status or 'nothing'}"]
        if report.code == 0:
            wrong.append(f"the gate is {report.gate}")
        return wrong

    return right


TRAININGS = {
    "demo": Training(
        "demo, 14,400 samples",
        "improving, slowing or converged; gate passed or warned; a cost is named where there is one",
        ("train.samples=14400",),
        _shared,
        _healthy,
    ),
    "few": Training(
        f"{FEW} pictures, 222 epochs",
        "overfitting; no step that copies is kept",
        ("train.samples=16000",),
        _few,
        _learnt_by_heart,
    ),
    "small_rate": Training(
        "learning rate 1e-6",
        "no_effect; keep the base; gate failed",
        ("train.samples=4800", "optim.lr=1e-6", *_SHORT),
        _shared,
        _without_effect,
    ),
    "large_rate": Training(
        "learning rate 0.03",
        "diverged, stopped early; keep the base; gate failed",
        ("train.samples=7200", "optim.lr=0.03", *_SHORT),
        _shared,
        _diverged,
    ),
    "wrong99": Training(
        "99 % wrong captions",
        "refused before training; trained all the same: gate failed for its captions",
        ("train.samples=4800",),
        _wrong(0.99),
        _captions("failed"),
        refused="captions",
    ),
    "wrong50": Training(
        "50 % wrong captions",
        "the gate does not pass, for its captions",
        ("train.samples=4800", "doctor.captions=warn"),
        _wrong(0.5),
        _captions("failed", "undecided"),
    ),
}


@dataclass(frozen=True, slots=True)
class Leaking:
    """Twins of training pictures among the held-out ones: joined by the curation, else found before training."""

    planted: str = "val pictures that are cropped, rotated or shifted copies of train"
    expected: str = "kept on one side; where that is off, found before training"

    def run(self, planting: Planting, name: str) -> Found:
        """Curate the twins with and without joining siblings, and start a training on the latter."""
        data = _shared(planting, name)
        target = planting.folder(name)
        if not (target / twins.PLAN).is_file():
            twins.plant(planting.root / data / "curate", target, planting.seed)
        settings = (
            "dataset=folder",
            f"dataset.root={target / 'pictures'}",
            "clip=starter",
            "filters=none",
        )
        shares = {}
        for kind, siblings in (("joined", "true"), ("leaking", "false")):
            run = f"{name}-{kind}"
            planting.curate(run, *settings, f"split.siblings={siblings}")
            shares[kind] = twins.apart(target, planting.folder(run) / "curate")
        train = (_DEMO, "doctor.leaks=refuse", "train.samples=32")
        done = planting.command(commands.TRAIN, f"{name}-leaking", *train, expected=None)
        wrong = []
        if max(shares["joined"].values()) > 0.1:
            wrong.append("the curation left twins on different sides")
        if done.code != 2 or "sibling" not in done.error:
            wrong.append(f"the training was not refused for its leaks (exit code {done.code})")
        apart = "; ".join(f"{kind}: {_percent(by)} apart" for kind, by in shares.items())
        return Found(f"{apart}. {done.error}", {}, tuple(wrong))


def _percent(shares: dict[str, float]) -> str:
    return ", ".join(f"{kind} {share:.0%}" for kind, share in shares.items())


ROWS: dict[str, Training | Leaking] = {**TRAININGS, "twins": Leaking()}
