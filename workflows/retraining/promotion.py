"""Whether a judged run takes the place of the promoted one; promoting by hand and going back; what is deleted."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from curate.run import checksums
from curate.run.schema import UserError
from evaluate.results import Results, load
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
        kept: step to keep, 0 for the base. export: its folder, relative to the run; "" for the base.
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
    kept = found.verdict.kept
    same = kept == found.verdict.exported
    export = "" if kept == 0 else EXPORT if same else f"{EXPORT}-step-{kept:08d}"
    result = " ".join(each.text for each in found.findings if each.part == "result")
    broken = [check for check in found.checks if check.status in ("failed", "undecided")]
    reasons = "; ".join(
        f"{check.name}: {check.measured}, has to be {check.rule}"
        for check in broken
        if check.status == found.gate
    )
    if found.gate == "failed":
        return Decision("rejected", f"The gate failed ({reasons}). {result}", kept, export)
    if found.gate == "undecided":
        return Decision("undecided", f"The gate is undecided ({reasons}). {result}", kept, export)
    if kept == 0:
        return Decision("rejected", f"No checkpoint is better than the base. {result}", kept, "")
    against = (
        f" It was compared with {compared_with} on the same pictures." if compared_with else ""
    )
    warned = " The gate warns." if found.gate == "warned" else ""
    return Decision("promoted", f"{result}{against}{warned}", kept, export)


def promote(series: Series, record: Record, event: str) -> None:
    """Point to a run."""
    before = series.current()
    previous = (
        before.run if before and before.run != record.run else before.previous if before else ""
    )
    series.point_to(Current(record.run, f"{record.run}/{record.export}", now(), event, previous))


def by_hand(series: Series, run: str, say: Callable[[str], None]) -> None:
    """Promote any judged run of the series, whatever its gate said.

    Raises:
        UserError: the run has no export to promote; says what to type.
    """
    record = Record.load(series.run_dir(run))
    if record is None or record.kept < 0:
        raise UserError(f"{series.run_dir(run)} is no judged retraining; {_listed(series)}")
    if not record.export or not (series.run_dir(run) / record.export).is_dir():
        raise UserError(
            f"{run} keeps no checkpoint (the base is better), so there is nothing to promote; {_listed(series)}"
        )
    promote(series, record, "promoted by hand")
    sentence = f"{run} was promoted by hand; its retraining ended {record.outcome}."
    series.add("promoted by hand", run, sentence, record.summary)
    say(f"promoted {run}: {series.root / run / record.export}")


def roll_back(series: Series, say: Callable[[str], None]) -> None:
    """Point to the run that was promoted before.

    Raises:
        UserError: there is none, or its folder is gone.
    """
    current = series.current()
    if current is None or not current.previous:
        raise UserError(f"{series.name} has no run that was promoted before; {_listed(series)}")
    record = Record.load(series.run_dir(current.previous))
    if record is None or not (series.run_dir(record.run) / record.export).is_dir():
        raise UserError(f"{series.run_dir(current.previous)} is gone; {_listed(series)}")
    promote(series, record, "rolled back")
    series.add(
        "rolled back", record.run, f"Back from {current.run} to {record.run}.", record.summary
    )
    say(
        f"rolled back from {current.run} to {record.run}: {series.root / record.run / record.export}"
    )


def _listed(series: Series) -> str:
    known = [record.run for record in series.records() if record.export]
    return (
        f"type python -m workflows.promote with one of {', '.join(known)}"
        if known
        else "no run has an export yet"
    )


def delete_old(series: Series, keep: int | None, say: Callable[[str], None]) -> None:
    """Delete finished runs but the last ``keep``, the promoted one, the one before it and what these began from."""
    if keep is None:
        return
    records = [record for record in series.records() if record.outcome]
    current = series.current()
    needed = {record.run for record in records[-keep:]}
    needed |= {current.run, current.previous} if current else set()
    known = {record.run: record for record in records}
    for run in list(needed):
        while (start := known[run].start_from if run in known else "") and start not in needed:
            needed.add(start)
            run = start
    for record in records:
        if record.run not in needed:
            _delete(series.run_dir(record.run))
            say(f"deleted {series.run_dir(record.run)}: older than the last {keep} (keep={keep})")


def _delete(run_dir: Path) -> None:
    """Delete a run; killed meanwhile, what is left is no run any more."""
    aside = run_dir.with_name(f".{run_dir.name}.deleted.part")
    shutil.rmtree(aside, ignore_errors=True)
    run_dir.rename(aside)
    shutil.rmtree(aside)
