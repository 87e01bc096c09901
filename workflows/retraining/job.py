"""One retraining at work: its series, its run, and the commands that its steps are."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

from curate.run.files import sync
from curate.run.locks import locked
from curate.run.provenance import provenance
from curate.run.schema import Busy, UserError
from workflows.retraining import (
    commands,
    comparison,
    curations,
    history_page,
    inputs,
    lineage,
    model_card,
    promotion,
    registry,
    removals,
    request,
    run_report,
    several,
    steps,
    summary,
)
from workflows.retraining.commands import Settings, programs
from workflows.retraining.config import RetrainConfig
from workflows.retraining.curations import Curation
from workflows.retraining.inputs import Inputs
from workflows.retraining.outcome import Outcome, nothing_to_do
from workflows.retraining.promotion import Decision
from workflows.retraining.record import Change, Record, Step, now, run_name
from workflows.retraining.series import Series
from workflows.retraining.unchanged import digest_of

_ENDED = ("promoted", "rejected", "undecided")
_GIVEN_UP_FOR = ("setting", "removal", "package", "code", "model")  # kinds of changes


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

    @property
    def curations(self) -> list[Curation]:
        """Of the run, one for each data set."""
        return self.record.curations(self.series.root)

    def begin(self) -> None:
        """Start the run, or go on with one that was interrupted.

        The folder appears with all that is known of the run by then, so that no number is lost.
        """
        if self.record.started:
            say(f"going on with {self.record.run}")
            if self.record.kept < 0:  # else no command is left to read it
                self._keep_settings()
            return
        say(f"{'run':9} {self.run_dir.absolute()}")
        current = self.series.current()
        compared = request.compared_with(self.config, current)
        start_from = current.run if current and self.config.start_from == "promoted" else ""
        datasets = dict(self.settings.weights)
        self._refuse_taken(curations.of(self.run_dir, datasets))
        self.record = replace(
            self.record,
            arguments=tuple(map(commands.without_secrets, commands.typed())),
            started=now(),
            inputs=self.inputs.digest(),
            changes=self.changes,
            provenance=provenance(),
            start_from=start_from,
            compared_with=compared.run if compared else "",
            datasets=datasets,
        )
        part = self.series.part(self.record.run)
        shutil.rmtree(part, ignore_errors=True)
        self.inputs.save(part)
        self.settings.keep(part)
        self.record.save(part)
        part.rename(self.run_dir)
        sync(self.series.root)
        self._keep_settings()

    def _keep_settings(self) -> None:
        """For the commands of the run, in each folder that one of them takes for its own."""
        for run_dir in (self.run_dir, *(each.run_dir for each in self.curations if each.dataset)):
            self.settings.keep(run_dir)

    def _refuse_taken(self, found: Sequence[Curation]) -> None:
        """Refuse folders of data sets that are there before their run: what a deleted run left, or somebody's own."""
        there = [each.run_dir for each in found if each.dataset and each.run_dir.exists()]
        if there:
            raise UserError(
                f"{there[0]} is there already, where {self.record.run} would curate a data set; delete it if it was left by a "
                "run that you deleted, else rename it"
            )

    def step(
        self,
        name: str,
        section: str,
        further: Sequence[str] = (),
        ok: tuple[int, ...] = (0,),
        left: Callable[[], object] | None = None,
        run: str = "",
    ) -> None:
        """Run a step's command unless that is done.

        Args:
            name: of the step.
            section: whose settings the command takes.
            further: settings beside those.
            ok: exit codes of a command that came to its end.
            left: what it left, None where that is missing or damaged, and then it is not done.
            run: that the command is about, if not the job's own.

        Raises:
            UserError, Busy: the command said so. Failed: it ended otherwise.
        """
        arguments = self.settings.arguments(
            section, str(self.series.root), run or self.record.run, further
        )
        program = programs(self.config.launch)[several.command_of(section)]
        self.command(name, [*program, *arguments], ok, left)

    def command(
        self,
        name: str,
        command: Sequence[str],
        ok: tuple[int, ...] = (0,),
        left: Callable[[], object] | None = None,
    ) -> None:
        """Run a command as the step ``name``, unless that is done; see :meth:`step`."""
        left = left or (lambda: True)
        if name in self.record.steps and left() is not None:
            return
        say(f"{name:9} {self.record.run}")
        started = now()
        code = steps.run(command, self.lock, {"OMP_WAIT_POLICY": "PASSIVE", "KMP_BLOCKTIME": "0"})
        if code not in ok or left() is None:
            said = f"{name} of {self.record.run} ended with exit code {code}; what it said is above"
            if code == UserError.exit_code:
                raise UserError(said)
            if code == Busy.exit_code:
                raise Busy(said)
            raise steps.Failed(f"{said}. The same command goes on from there")
        self.record = self.record.with_step(name, Step(started, now(), code))
        self.record.save(self.run_dir)

    def forget(self, names: Collection[str]) -> None:
        """Note that some steps are to be done again."""
        self.record = self.record.without_steps(names)
        self.record.save(self.run_dir)

    def removed_meanwhile(self) -> bool:
        """Whether pictures were removed from other runs since this start looked; the run is then to be curated again.

        Nothing is trained on it yet. In each order that a kill may leave, the next start gives the run up or
        curates it again.
        """
        done = {*self.record.steps} & {"finetune", "evaluate"} or self.record.kept >= 0
        listed = removals.said(self.series)
        before = self.inputs.settings.get(removals.SETTING)
        if done or listed.get(removals.SETTING) == before:
            return False
        say(
            f"removed   pictures of other runs, meanwhile; {self.record.run} is curated without them"
        )
        self.forget([name for each in self.curations for name in (each.step, each.diff)])
        for each in self.curations:
            removals.take_over(self.series, each.run_dir)
        self.inputs = replace(self.inputs, settings={**self.inputs.settings, **listed})
        self.inputs.save(self.run_dir)
        self.record = replace(self.record, inputs=self.inputs.digest())
        self.record.save(self.run_dir)
        return True

    def compare_data(self) -> None:
        """Say what changed in each data set since the run that was promoted then."""
        if not (other := self.record.compared_with):
            return
        before = self.series.curations().get(other, [])
        for now_, then in curations.pairs(self.curations, before):
            runs = [str(each.run_dir) for each in (then, now_)]
            self.command(now_.diff, [sys.executable, "-m", "curate.diff", *runs])

    def examine_pictures(self) -> None:
        """Say or refuse, before hours of training, that the run could not be compared with the promoted one."""
        other = self.record.compared_with
        if not other or "finetune" in self.record.steps:
            return
        if warning := comparison.examine_pictures(self.series.run_dir(other), self.run_dir):
            say(warning)

    def start(self) -> Path | None:
        """The export that the training begins with; None for the base model."""
        run = self.record.start_from
        record = Record.load(self.series.run_dir(run)) if run else None
        return (
            self.series.run_dir(run) / (record.export if record else promotion.EXPORT)
            if run
            else None
        )

    def exported(self) -> Path | None:
        """The run's export, as training leaves it; None where there is none."""
        path = self.run_dir / promotion.EXPORT
        return path if path.is_dir() else None

    def note(self, decision: Decision) -> Decision:
        """Note what becomes of the run, which has not ended yet; returns it with what was removed meanwhile."""
        if count := removals.still_trained_on(self.series, self.curations):
            said = f"{count} {'was' if count == 1 else 'were'} removed from other runs meanwhile"
            more = f"Of the pictures that it was trained on, {said}; the next start trains without."
            decision = replace(decision, sentence=f"{decision.sentence} {more}")
        self.record = replace(
            self.record,
            sentence=decision.sentence,
            kept=decision.kept,
            export=decision.export,
            summary=summary.of(self.run_dir),
        )
        self.record.save(self.run_dir)
        return decision

    def conclude(self, outcome: str) -> None:
        """End the run: its line in the history and, last, its record, after which nothing in it changes."""
        ended = replace(self.record, outcome=outcome, ended=now())
        if not self.series.has_ended(ended.run, outcome):  # else killed in between
            self.series.add(outcome, ended.run, ended.sentence, ended.summary)
        lineage.write(self.series, ended)
        model_card.write(self.series, ended)
        run_report.write(self.series, ended)
        ended.save(self.run_dir)
        self.record = ended
        self.settle()

    def settle(self) -> None:
        """What follows an end, and follows it at the next start where that one was killed."""
        history_page.write(self.series)
        promotion.delete_old(self.series, self.config.keep, say)
        promotion.delete_unchosen(self.series, say)
        self.remember_inputs()
        registry.follow(self.series, self._registry(), say)

    def _registry(self) -> registry.Target | None:
        return registry.target(self.config.registry.mlflow, self.series)

    def remember_inputs(self) -> None:
        """Let the next start's quick look know what this one was made from, where that look is enough."""
        removed = removals.said(self.series).get(removals.SETTING)
        quick = (
            removed == self.inputs.settings.get(removals.SETTING)
            and self.config.fingerprint == "stat"
            and self.config.notify.on != "all"
            and self.config.json == commands.is_json_typed()
        )
        now_there = inputs.refreshed(self.inputs, self.series, self.settings.weights)
        now_there.save(self.series.folder, quick)

    def why(self) -> Outcome:
        """What would start a retraining; prints each change."""
        going_on = [record.run for record in self.series.records() if not record.outcome]
        behind = registry.behind(self.series, self._registry())
        if not self.changes and not going_on and not behind:
            return nothing_to_do(self.series.root, self.series.name)
        found = [(change.kind, change.sentence()) for change in self.changes]
        found += [("registry", behind)] if behind else []
        for kind, text in found:
            say(f"{kind:9} {text}")
        said = tuple(text for _, text in found)
        counted = (
            f"{len(said)} changes would start a retraining" if len(said) > 1 else "".join(said)
        )
        first = f"{going_on[-1]} is unfinished; " if going_on else ""
        sentence = first + (counted or "nothing changed since the last one that ended")
        current = self.series.current()
        return Outcome("would_start", sentence, None, current.run if current else None, None, said)

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

    A run that was interrupted is gone on with if it is judged already, or if its settings, code and packages are
    as they were; else it is given up, and the next one takes its place. Data that changed after its curation are
    the next retraining's.

    Raises:
        Busy: another one is at work; names it.
        UserError: a file of the series is damaged.
    """
    is_checked = not series.folder.is_dir()
    if is_checked:  # so that nothing is made, not even the series' folder
        _refuse(config, settings, series)
    elif config.why:
        with locked(series.folder, shared=True):
            pass  # says who is at work; a look must not keep a retraining from starting
    with nullcontext() if config.why else series.locked() as lock:
        if not config.why:
            promotion.complete(series)
        series.current()  # refuses a damaged one
        records = series.records()
        ended = [record for record in records if record.outcome in _ENDED]
        open_runs = [record for record in records if not record.outcome]
        before = Inputs.load(series.run_dir(ended[-1].run)) if ended else None
        if before is None and not open_runs and not is_checked:  # else all files are read first
            _refuse(config, settings, series)
            is_checked = True
        typed, content = digest_of(commands.typed()), config.fingerprint == "content"
        now_there = inputs.gather(typed, settings, config.start_from, series, before, content)
        changes = inputs.changes(before, now_there)
        if ended and before is None:
            changes = (Change("first", f"{ended[-1].run} does not say what it was made from"),)
        next_run = Record(series.name, series.next_number())
        job = Job(config, settings, series, lock, now_there, changes, next_run)
        going_on = open_runs[-1] if open_runs and not _fault(job, open_runs[-1]) else None
        if (changes or going_on) and not is_checked:
            _refuse(config, settings, series, going_on)
        if open_runs and not config.why:
            _take_up(job, open_runs[-1], before)
        yield job


def _refuse(
    config: RetrainConfig, settings: Settings, series: Series, going_on: Record | None = None
) -> None:
    """Refuse what a command would; a run that is gone on with needs nothing for the steps that it has done."""
    if going_on is None:
        request.refuse_incomparable(config, settings, series)
        request.examine(config, settings, series, run_name(series.name, series.next_number()))
    elif going_on.kept < 0:  # else only its end is left
        request.examine(config, settings, series, going_on.run, going_on.steps)


def say(text: str) -> None:
    """Print a line for the user, before what a step prints."""
    print(text, flush=True)


def _promoted(job: Job) -> str:
    """The run that the next one has to be as good as; "" for none."""
    current = request.compared_with(job.config, job.series.current())
    return current.run if current else ""


def _fault(job: Job, found: Record) -> str:
    """Why an interrupted run cannot be gone on with; "" where it can."""
    if found.kept >= 0:  # it is judged
        return ""
    made_from = Inputs.load(job.series.run_dir(found.run))
    if made_from is None:
        return "nothing says what it was made from"
    for change in inputs.changes(made_from, job.inputs):
        if change.kind in _GIVEN_UP_FOR:
            return change.sentence()
    promoted = _promoted(job)
    if promoted != found.compared_with and found.start_from:
        return f"it began with {found.start_from}, and {promoted or 'no run'} is promoted by now"
    return ""


def _take_up(job: Job, found: Record, before: Inputs | None) -> None:
    """Go on with an interrupted run, or give it up.

    Args:
        job: at work. found: the run's record.
        before: what the last retraining that ended was made from.
    """
    if why := _fault(job, found):
        _give_up(job, found, f"something changed: {why}")
        return
    run_dir, promoted = job.series.run_dir(found.run), _promoted(job)
    made_from = Inputs.load(run_dir)
    curated = found.curations(job.series.root)
    if found.kept < 0 and promoted != found.compared_with:  # by hand, meanwhile
        say(f"{found.run} is compared with {promoted or 'the base'}, which was promoted meanwhile")
        outdated = {"evaluate", *(each.diff for each in curated)}
        found = replace(found.without_steps(outdated), compared_with=promoted)
        found.save(run_dir)
    done = {each.kind for each in curated if each.step in found.steps}
    changed = made_from is not None and made_from.digest() != job.inputs.digest()
    if made_from and changed and len(done) < len(curated):  # the others take what is there now
        made_from = inputs.taken(made_from, job.inputs, done) if done else job.inputs
        changes = inputs.changes(before, made_from) if done else job.changes
        made_from.save(run_dir)
        found = replace(found, inputs=made_from.digest(), changes=changes or found.changes)
        found.save(run_dir)
        if not changes:  # what started it is undone: a folder was away, perhaps
            _give_up(job, found, "what started it is as it was before")
            return
    job.record, job.changes = found, found.changes
    job.inputs = made_from or replace(job.inputs, typed="")  # which no quick look takes for its own


def _give_up(job: Job, found: Record, why: str) -> None:
    """End a run that was not judged; the next one gets another number."""
    sentence = f"Given up before it was judged, since {why}."
    if not job.series.has_ended(found.run, "abandoned"):  # else killed in between
        job.series.add("abandoned", found.run, sentence)
    ended = replace(found, outcome="abandoned", sentence=sentence, ended=now())
    ended.save(job.series.run_dir(found.run))
    say(f"gave up   {found.run}: {why}")
