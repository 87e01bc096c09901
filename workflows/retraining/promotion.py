"""Whether a judged run takes the place of the promoted one; promoting by hand and going back; what is deleted."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from curate.run import checksums
from curate.run.locks import locked
from curate.run.schema import Busy, UserError
from evaluate.results import Results, load
from finetune import prune
from workflows.retraining import removals
from workflows.retraining.record import Record, now
from workflows.retraining.series import Current, Series
from workflows.retraining.steps import Failed

EXPORT = "finetune/export"
JUDGED = (
    0,
    1,
    3,
)  # exit codes of an evaluation that came to its end, which its report.json then proves


@dataclass(frozen=True, slots=True)
class Decision:
    """What becomes of a judged run.

    Attributes:
        outcome: ``promoted``, ``rejected`` or ``undecided``.
        sentence: why, for a person.
        kept: step whose weights the export holds, 0 where the base is to be kept.
        export: its folder, relative to the run; "" for the base.
    """

    outcome: str
    sentence: str
    kept: int
    export: str


def judged(run_dir: Path) -> Results | None:
    """What the evaluation of a run found; None where it has not come to its end."""
    folder = run_dir / "evaluate"
    if checksums.read(folder) is None or not checksums.is_intact(folder, "report.json"):
        return None
    return load(folder / "report.json")


def decide(found: Results | None, compared_with: str) -> Decision:
    """Promoted where the gate passed or warned and a checkpoint is kept; the sentence has the figures.

    What is promoted is the run's export, which the gate's rules judge. The checkpoint to keep may be an earlier
    one, not clearly worse; where the export copies training pictures, the gate has failed.

    Args:
        found: by the evaluation; None where it wrote no report.
        compared_with: the promoted run that the gate compared with; "" where there was none.

    Raises:
        Failed: there is nothing to decide by.
    """
    if found is None:
        raise Failed(
            "the evaluation wrote no report; what it said is above. The same command judges again"
        )
    kept = found.verdict.exported if found.verdict.kept else 0
    export = EXPORT if kept else ""
    on_undecided = found.provenance["evaluate"].get("gate", {}).get("on_undecided", "exit_3")
    result = " ".join(each.text for each in found.findings if each.part == "result")
    of_gate = ("warned", "skipped") if found.gate == "warned" else (found.gate,)
    reasons = "; ".join(
        f"{check.name}: {check.measured}, has to be {check.rule}"
        for check in found.checks
        if check.status in of_gate and found.gate != "passed"
    )
    if found.gate == "failed":
        return Decision("rejected", f"The gate failed ({reasons}). {result}", kept, export)
    if found.gate == "undecided" and on_undecided != "pass":
        if on_undecided == "fail":
            said = f"The gate is undecided ({reasons}), and gate.on_undecided=fail. {result}"
            return Decision("rejected", said, kept, export)
        return Decision("undecided", f"The gate is undecided ({reasons}). {result}", kept, export)
    if kept == 0:
        return Decision("rejected", f"No checkpoint is better than the base. {result}", kept, "")
    against = (
        f" It was compared with {compared_with} on the same pictures." if compared_with else ""
    )
    warned = {
        "warned": f" The gate warns ({reasons}).",
        "undecided": f" The gate is undecided ({reasons}), and gate.on_undecided=pass.",
    }.get(found.gate, "")
    other = (
        f" What is promoted is step {kept:,}, the best, which the gate's rules are on."
        if kept != found.verdict.kept
        else ""
    )
    return Decision("promoted", f"{result}{against}{warned}{other}", kept, export)


def promote(series: Series, record: Record, event: str) -> None:
    """Point to a run."""
    before = series.current()
    previous = (
        before.run if before and before.run != record.run else before.previous if before else ""
    )
    _point_to(series, record, event, previous)


def _point_to(series: Series, record: Record, event: str, previous: str) -> None:
    export = f"{record.run}/{record.export}"
    series.point_to(Current(record.run, export, now(), event, previous))


def tell(series: Series, current: Current, record: Record) -> None:
    """Add the line of the history that says how the promoted run came there."""
    sentence = {
        "promoted": record.sentence,
        "promoted by hand": f"{record.run} was promoted by hand; its retraining ended {record.outcome}.",
        "rolled back": f"Back from {current.previous} to {record.run}.",
    }[current.event]
    series.add(current.event, record.run, sentence, record.summary)


def complete(series: Series) -> Current | None:
    """Add the line to the history that a killed promotion did not come to; returns what it had promoted."""
    if (current := series.untold()) is None:
        return None
    if record := Record.load(series.run_dir(current.run)):
        tell(series, current, record)
    return current


def by_hand(series: Series, run: str, say: Callable[[str], None]) -> None:
    """Promote any judged run of the series, whatever its gate said.

    Raises:
        UserError: the run has no export to promote; says what to type.
    """
    record = Record.load(series.run_dir(run))
    if record is None or record.kept < 0:
        raise UserError(f"{series.run_dir(run)} is no judged retraining; {_listed(series)}")
    if not record.outcome:
        raise UserError(
            f"{run} has not come to its end; type the same python -m workflows.retrain again, which goes on with it"
        )
    if not record.export or not (series.run_dir(run) / record.export).is_dir():
        raise UserError(
            f"{run} keeps no checkpoint (the base is better), so there is nothing to promote; {_listed(series)}"
        )
    try:
        done = complete(series)
        if done is None or (done.event, done.run) != ("promoted by hand", run):
            promote(series, record, "promoted by hand")
    except (
        UserError
    ):  # the file that names the promoted run is damaged, and this is the way to mend it
        known = [entry.current for entry in series.history() if entry.current not in ("", run)]
        _point_to(series, record, "promoted by hand", known[-1] if known else "")
    complete(series)
    say(f"promoted {run}: {series.root / run / record.export}")


def roll_back(series: Series, say: Callable[[str], None]) -> None:
    """Point to the run that was promoted before.

    Raises:
        UserError: there is none, or its folder is gone.
    """
    done, current = complete(series), series.current()
    if current is None or not current.previous:
        raise UserError(f"{series.name} has no run that was promoted before; {_listed(series)}")
    if done is None or done.event != "rolled back":  # else a killed one did it
        if current.event == "rolled back":
            raise UserError(
                f"{current.run} is in use since the last --rollback, which went back from {current.previous}; {_listed(series)}"
            )
        record = Record.load(series.run_dir(current.previous))
        if record is None or not (series.run_dir(record.run) / record.export).is_dir():
            raise UserError(f"{series.run_dir(current.previous)} is gone; {_listed(series)}")
        promote(series, record, "rolled back")
        complete(series)
        current = series.current()
        assert current is not None
    say(f"rolled back from {current.previous} to {current.run}: {series.root / current.export}")


def _listed(series: Series) -> str:
    known = [record.run for record in series.records() if record.export]
    return (
        f"type python -m workflows.promote with one of {', '.join(known)}"
        if known
        else "no run has an export yet"
    )


def delete_old(series: Series, keep: int | None, say: Callable[[str], None]) -> None:
    """Delete finished runs but the last ``keep``, the promoted one, the one before it and what these began from.

    A run that was given up goes with the finished ones before it, and the curations of its data sets go with a run. It
    stays while another training stands on its shards, and until what was removed from it since the last curation is
    handed on to the next.
    """
    from curate.pipeline.previous_run import trainings

    if keep is None:
        return
    records = [record for record in series.records() if record.outcome]
    finished = [record for record in records if record.outcome != "abandoned"]
    current = series.current()
    known = {record.run: record for record in records}
    needed = {record.run for record in finished[-keep:]}
    needed |= {current.run, current.previous} if current else set()
    for run in list(needed):
        while (start := known[run].start_from if run in known else "") and start not in needed:
            needed.add(start)
            run = start
    oldest = finished[-keep].number if len(finished) >= keep else 0
    for record in records:
        if record.run in needed or record.number >= oldest:
            continue
        used = [
            path
            for each in record.curations(series.root)
            for path in trainings(each.run_dir)
            if path.parent.name != record.run
        ]
        if used or not removals.are_handed_on(series, record.run, finished[-1].run):
            continue
        with suppress(Busy):  # a command reads it, or trains on it; the next end deletes it
            _delete(series, record)
            say(f"deleted {series.run_dir(record.run)}: older than the last {keep} (keep={keep})")


def delete_unchosen(series: Series, say: Callable[[str], None]) -> None:
    """Delete the checkpoints of finished runs that no verdict chose, as ``checkpoint.keep`` says."""
    for record in series.records():
        run_dir = series.run_dir(record.run)
        if not record.outcome or (keep := prune.kept_states(run_dir)) is None:
            continue
        with suppress(Busy, UserError):  # a command reads it; or it was given up before its verdict
            found = prune.unchosen(run_dir, prune.chosen_steps(run_dir), keep)
            with locked(run_dir / "finetune"):
                prune.delete(run_dir, found)
            if found:
                say(
                    f"deleted {len(found)} checkpoints of {run_dir} that the verdict did not choose "
                    f"(checkpoint.keep={keep})"
                )


def _delete(series: Series, record: Record) -> None:
    """Delete a run with its curations; killed meanwhile, what is left is no run any more.

    Raises:
        Busy: another command is at work in it.
    """
    aside, run_dir = series.part(record.run), series.run_dir(record.run)
    shutil.rmtree(aside, ignore_errors=True)
    folders = [each.folder for each in record.curations(series.root)]
    with ExitStack() as locks:
        for folder in (*folders, run_dir / "finetune", run_dir / "evaluate"):
            if folder.is_dir():
                locks.enter_context(locked(folder))
        run_dir.rename(aside)
    series.remove_part(aside)
