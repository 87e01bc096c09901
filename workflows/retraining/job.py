"""One retraining at work: its series, its run, and the commands that its steps are."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from curate.run.locks import locked
from curate.run.provenance import provenance, redacted_override
from curate.run.schema import Busy, UserError
from workflows.retraining import (
    commands,
    history_page,
    inputs,
    lineage,
    model_card,
    promotion,
    removals,
    run_report,
    steps,
    summary,
)
from workflows.retraining.commands import Settings, programs
from workflows.retraining.config import RetrainConfig
from workflows.retraining.inputs import Inputs
from workflows.retraining.outcome import Outcome
from workflows.retraining.promotion import Decision
from workflows.retraining.record import Change, Record, Step, now
from workflows.retraining.series import Series
from workflows.retraining.unchanged import digest_of

_ENDED = ("promoted", "rejected", "undecided")


@dataclass
class Job:
    """A retraining that holds its series' lock.

    Attributes:
        config: of the command. settings: of the steps.
        series: whose next run it makes. lock: the descriptor that steps inherit.
        inputs: as they are now. changes: since the last one that ended; none: there is nothing to do.
        record: of the run; without a start until :meth:`begin`.
    """

    config: RetrainConfig
    settings: Settings
    series: Series
    lock: int | None
    inputs: Inputs
    changes: tuple[Change, ...]
    record: Record

    @property
    def run_dir(self) -> Path:
        """Of the run."""
        return self.series.run_dir(self.record.run)

    def begin(self) -> None:
        """Start the run, or go on with one that was interrupted."""
        if self.record.started:
            say(f"going on with {self.record.run}")
            return
        current = self.series.current()
        start_from = current.run if current and self.config.start_from == "promoted" else ""
        self.record = replace(
            self.record,
            arguments=tuple(map(redacted_override, commands.typed())),
            started=now(),
            inputs=self.inputs.digest(),
            changes=self.changes,
            provenance=provenance(),
            start_from=start_from,
            compared_with=current.run if current else "",
        )
        self.inputs.save(self.run_dir)
        self.record.save(self.run_dir)

    def step(
        self, name: str, section: str, further: Sequence[str] = (), ok: tuple[int, ...] = (0,)
    ) -> None:
        """Run a step's command unless that is done.

        Args:
            name: of the step.
            section: whose settings the command takes.
            further: settings beside those.
            ok: exit codes of a command that came to its end.

        Raises:
            UserError, Busy: the command said so. Failed: it ended otherwise.
        """
        arguments = self.settings.arguments(
            section, str(self.series.root), self.record.run, further
        )
        self.command(name, [*programs(self.config.launch)[section], *arguments], ok)

    def command(self, name: str, command: Sequence[str], ok: tuple[int, ...] = (0,)) -> None:
        """Run a command as the step ``name``, unless that is done; see :meth:`step`."""
        if name in self.record.steps:
            return
        say(f"{name:9} {self.record.run}")
        started = now()
        code = steps.run(command, self.lock, {"OMP_WAIT_POLICY": "PASSIVE", "KMP_BLOCKTIME": "0"})
        if code not in ok:
            said = f"{name} of {self.record.run} ended with exit code {code}; what it said is above"
            if code == UserError.exit_code:
                raise UserError(said)
            if code == Busy.exit_code:
                raise Busy(said)
            raise steps.Failed(f"{said}. The same command goes on from there")
        self.record = self.record.with_step(name, Step(started, now(), code))
        self.record.save(self.run_dir)

    def compare_data(self) -> None:
        """Say what changed in the data since the run that was promoted then."""
        if other := self.record.compared_with:
            runs = [str(self.series.run_dir(run)) for run in (other, self.record.run)]
            self.command("diff", [sys.executable, "-m", "curate.diff", *runs])

    def export(self, step: int) -> None:
        """Export a checkpoint beside the one that training exported."""
        where = [str(self.run_dir), f"step={step}"]
        self.command("export", [sys.executable, "-m", "finetune.export", *where])

    def note(self, decision: Decision) -> None:
        """Note what becomes of the run; it has not ended yet."""
        self.record = replace(
            self.record,
            sentence=decision.sentence,
            kept=decision.kept,
            export=decision.export,
            summary=summary.of(self.run_dir),
        )
        self.record.save(self.run_dir)

    def conclude(self, outcome: str) -> None:
        """End the run: its line in the history and, last, its record, after which nothing in it changes."""
        ended = replace(self.record, outcome=outcome, ended=now())
        last = self.series.history()[-1:]
        if not last or (last[0].run, last[0].event) != (
            ended.run,
            outcome,
        ):  # else killed in between
            self.series.add(outcome, ended.run, ended.sentence, ended.summary)
        lineage.write(self.series, ended)
        model_card.write(self.series, ended)
        run_report.write(self.series, ended)
        ended.save(self.run_dir)
        self.record = ended
        history_page.write(self.series)
        self.remember_inputs()
        promotion.delete_old(self.series, self.config.keep, say)

    def remember_inputs(self) -> None:
        """Let the next start's quick look know what this one was made from."""
        same = removals.said(self.series).get(removals.SETTING) == self.inputs.settings.get(
            removals.SETTING
        )
        quick = same and self.config.fingerprint == "stat" and self.config.notify.on != "all"
        inputs.refreshed(self.inputs, self.series).save(self.series.folder, quick)

    def outcome(self, word: str, sentence: str) -> Outcome:
        """As it is printed."""
        current = self.series.current()
        report = self.run_dir / "retrain.html"
        return Outcome(
            word,
            sentence,
            self.record.run,
            current.run if current else None,
            str(report) if report.is_file() else None,
            tuple(change.sentence() for change in self.changes),
        )


@contextmanager
def opened(config: RetrainConfig, settings: Settings, series: Series) -> Iterator[Job]:
    """Look at what is new while no other retraining of the series is at work.

    A run that was interrupted is gone on with if its settings, code and packages are as they were; else it is
    given up, and the next one takes its place. Data that changed meanwhile are the next retraining's.

    Raises:
        Busy: another one is at work; names it.
        UserError: a file of the series is damaged.
    """
    with locked(series.folder, shared=config.why) as lock:
        records = series.records()
        ended = [record for record in records if record.outcome in _ENDED]
        before = Inputs.load(series.run_dir(ended[-1].run)) if ended else None
        typed, content = digest_of(commands.typed()), config.fingerprint == "content"
        now_there = inputs.gather(typed, settings, series, before, content)
        changes = inputs.changes(before, now_there)
        if ended and before is None:
            changes = (Change("first", f"{ended[-1].run} does not say what it was made from"),)
        next_run = Record(series.name, series.next_number())
        job = Job(config, settings, series, lock, now_there, changes, next_run)
        open_runs = [record for record in records if not record.outcome]
        if open_runs and not config.why:
            _take_up(job, open_runs[-1])
        yield job


def say(text: str) -> None:
    """Print a line for the user, before what a step prints."""
    print(text, flush=True)


def _take_up(job: Job, found: Record) -> None:
    """Go on with an interrupted run, or give it up."""
    run_dir = job.series.run_dir(found.run)
    made_from = Inputs.load(run_dir)
    differs = [
        change
        for change in (inputs.changes(made_from, job.inputs) if made_from else ())
        if change.kind in ("setting", "package", "code", "model")
    ]
    if made_from is not None and not differs:
        job.record, job.inputs, job.changes = found, made_from, found.changes
        return
    why = differs[0].sentence() if differs else "nothing says what it was made from"
    sentence = f"Given up before it was judged, since something changed: {why}."
    job.series.add("abandoned", found.run, sentence)
    replace(found, outcome="abandoned", sentence=sentence, ended=now()).save(run_dir)
    say(f"gave up   {found.run}: {why}")
