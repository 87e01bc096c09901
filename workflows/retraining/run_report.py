"""``retrain.html`` of a run: what became of the retraining and why, what started it, the data, and the judgement."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from markupsafe import Markup

from curate.report import page
from curate.report.page import Section
from curate.run.files import write_text
from evaluate.evaluators.heldout import loss_curves
from evaluate.outputs import headline
from evaluate.outputs.report import checks
from evaluate.results import Results, load
from workflows.retraining import curations, data_changes, run_files, summary
from workflows.retraining.curations import Curation
from workflows.retraining.history_page import FILE as HISTORY
from workflows.retraining.history_page import OUTCOMES, day
from workflows.retraining.record import Change, Record, Step
from workflows.retraining.series import Series
from workflows.retraining.timeline import HELDOUT, PROMPTS, Retraining

FILE = "retrain.html"
_MOST_CHANGES = 60  # that are listed
_NAMED = 3  # of them in the headline
_LONGEST = 800  # characters of a sentence
_KINDS = {
    "first": "The first one",
    "data": "Data",
    "removal": "Removed pictures",
    "setting": "Settings",
    "model": "Base model",
    "code": "Code",
    "package": "Packages",
}


def write(series: Series, record: Record) -> Path:
    """Write the page of a run, and say where.

    Raises:
        UserError: a report or a comparison that it shows is damaged.
    """
    path = series.run_dir(record.run) / FILE
    write_text(path, render(series, record))
    return path


def render(series: Series, record: Record) -> str:
    """The page; links are relative to the run's folder. What a stage did not leave is left out."""
    run_dir = series.run_dir(record.run)
    report = run_dir / "evaluate" / "report.json"
    found = load(report) if report.is_file() else None
    shown = Retraining(
        record.run, record.ended, record.outcome, record.sentence, summary.of(run_dir)
    )
    sections = [
        Section("What became of it", "outcome", _outcome(series, record, shown)),
        Section("What started it", "changes", _changes(record)),
    ]
    if found is not None:
        sections.append(Section("Evaluation", "evaluation", _evaluation(found)))
        sections.append(Section("Gate", "gate", _gate(found)))
        sections.append(Section("Training", "training", _training(found)))
    sections += _data(series, record, shown)
    sections.append(Section("Reports and files", "files", _files(series, record)))
    sections.append(Section("Provenance", "provenance", _provenance(record)))
    name = page.clean(record.run, 80)
    subtitle = f"Retraining {record.number} of {page.clean(record.series, 80)}, {_between(record)}"
    return page.render(page.Page(f"Retraining {name}", subtitle, sections))


def _between(record: Record) -> str:
    ended = f" to {day(record.ended)}" if record.ended else ", not ended"
    return f"{day(record.started)}{ended} UTC"


# What became of it


def _outcome(series: Series, record: Record, shown: Retraining) -> Markup:
    kind, *_ = OUTCOMES.get(record.outcome, ("info",))
    text = page.clean(record.sentence, _LONGEST)
    parts = _part(
        "Result",
        Markup("<p>{} {}</p>").format(page.badge(kind, record.outcome or "not ended"), text),
    )
    parts += _part("Compared with", page.paragraph(_compared(record)))
    parts += _part("Began with", page.paragraph(_began(record)))
    parts += _part("Why it ran", page.paragraph(_why(record.changes)))
    parts += _part("In use", page.paragraph(_in_use(series, record)))
    return Markup('<div class="parts">{}</div>').format(parts) + page.tiles(_tiles(record, shown))


def _part(title: str, body: Markup) -> Markup:
    return Markup('<div class="part"><h3>{}</h3>{}</div>').format(title, body)


def _compared(record: Record) -> str:
    if not record.compared_with:
        return "The base model alone: no run was promoted then."
    return f"{page.clean(record.compared_with, 80)}, which was in use, on the same held-out pictures, and the base model."


def _began(record: Record) -> str:
    if not record.start_from:
        return "The base model."
    return f"The export of {page.clean(record.start_from, 80)}."


def _why(changes: tuple[Change, ...]) -> str:
    said = [page.clean(change.sentence(), 200) for change in changes[:_NAMED]]
    more = len(changes) - len(said)
    return "; ".join([*said, *([f"and {more:,} more"] if more else [])]) + "."


def _in_use(series: Series, record: Record) -> str:
    """As of the end of this retraining, whether the page is written before the pointer is moved or after."""
    if record.outcome == "promoted":
        other = page.clean(record.compared_with, 80) or "the base model"
        return f"This run, in the place of {other}, when this page was written."
    current = series.current()
    if current is None:
        return "The base model: nothing was promoted yet, when this page was written."
    return f"{page.clean(current.run, 80)}, when this page was written."


def _tiles(record: Record, shown: Retraining) -> Iterator[tuple[str, str]]:
    data = shown.data
    if data:
        rate = data.get("keep_rate")
        share = "" if rate is None else f" ({rate:.1%})"
        yield f"{data['kept']:,}", f"of {data.get('pairs_in', 0):,} pairs kept{share}"
        yield f"{data['images']['train']:,}", "pictures to train on"
    if shown.evaluation:
        yield shown.shown(*HELDOUT).partition(" [")[0], "held-out loss against the base"
        if record.compared_with and shown.metric("against_change")[1].value is not None:
            yield (
                shown.shown("against_change").partition(" [")[0],
                f"against {record.compared_with}",
            )
        yield shown.shown(PROMPTS).partition(" [")[0], "prompt following (real pictures: 1)"
    if record.steps:
        yield _minutes(sum(map(_seconds, record.steps.values()))), "of all steps"


def _seconds(step: Step) -> float:
    started, ended = map(datetime.fromisoformat, (step.started, step.ended))
    return (ended - started).total_seconds()


def _minutes(seconds: float) -> str:
    """A time for people.

    >>> _minutes(42), _minutes(600), _minutes(9000)
    ('42 s', '10 min', '2 h 30 min')
    """
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def _changes(record: Record) -> Markup:
    if not record.changes:
        return page.paragraph("Nothing is noted.")
    rows = [
        [_KINDS.get(change.kind, change.kind), change.what, change.before, change.now]
        for change in record.changes[:_MOST_CHANGES]
    ]
    body = page.paragraph("What differs from the last retraining that ended.")
    body += page.table(
        ["Kind", "What", "Before", "Now"], [[_text(cell) for cell in r] for r in rows]
    )
    if more := len(record.changes) - _MOST_CHANGES:
        body += page.paragraph(f"{more:,} more are in retrain.json.", "note") if more > 0 else ""
    return body


def _text(value: str) -> Markup:
    return page.quote(value, 300) if value else Markup("")


# Data, training, judgement


def _data(series: Series, record: Record, shown: Retraining) -> list[Section]:
    compared = _compared_data(series, record)
    embedded = [
        section
        for now, before in compared
        for section in data_changes.embedded(now.run_dir, before.run_dir, now.dataset)
    ]
    if embedded and len(compared) == len(record.datasets or ("",)):
        return embedded
    return [*_counts(record, shown), *embedded]


def _compared_data(series: Series, record: Record) -> list[tuple[Curation, Curation]]:
    """The curations of the run, and the compared run's of the same data sets."""
    own = record.curations(series.root)
    return curations.pairs(own, series.curations().get(record.compared_with, ()))


def _counts(record: Record, shown: Retraining) -> list[Section]:
    """What was curated, of all data sets together."""
    if not shown.data:
        return []
    data = shown.data
    rows = [[rule["rule"], rule["dropped"]] for rule in data["rules"]]
    text = f"Of {data.get('pairs_in', 0):,} pairs {data['kept']:,} are kept."
    if record.datasets:
        listed = ", ".join(f"{name} (weight {each:g})" for name, each in record.datasets.items())
        text += f" Data sets: {listed}."
    body = page.paragraph(text) + page.tiles(
        (f"{n:,}", f"pictures in {side}") for side, n in data["images"].items()
    )
    if rows:
        body += page.table(["Rules that dropped most", "Pairs dropped"], rows)
    return [Section("Data", "data", body)]


def _training(found: Results) -> Markup:
    verdict, config = found.verdict, found.provenance.get("finetune", {})
    method, optim = config.get("method", {}).get("name", "?"), config.get("optim", {})
    seen = found.checkpoints[-1].samples_seen
    text = (
        f"{method}, learning rate {optim.get('lr', '?')}: {verdict.last:,} steps, {seen:,} samples. "
        f"{verdict.sentence}"
    )
    caption = "Loss against the base on held-out and on training pictures, with 95 % intervals."
    return page.paragraph(page.clean(text, _LONGEST)) + page.figure(
        loss_curves(found), caption, caption
    )


def _evaluation(found: Results) -> Markup:
    parts = Markup("").join(_findings(found, part, name) for part, name in headline.PARTS.items())
    body = Markup('<div class="parts">{}</div>').format(parts)
    return body + Markup(
        '<p class="note"><a href="evaluate/report.html">The whole evaluation</a></p>'
    )


def _findings(found: Results, part: str, name: str) -> Markup:
    lines = Markup("").join(
        Markup('<p>{} {} <a href="evaluate/report.html#{}">more</a></p>').format(
            page.badge(finding.state, headline.WORDS[finding.state]),
            page.clean(finding.text, 600),
            finding.section,
        )
        for finding in found.findings
        if finding.part == part
    )
    return _part(name, lines or page.paragraph("None."))


def _gate(found: Results) -> Markup:
    kind = headline.GATE_KINDS[found.gate]
    return Markup("<p>{}</p>").format(page.badge(kind, found.gate)) + checks(found)


# Files and provenance


def _files(series: Series, record: Record) -> Markup:
    run_dir = series.run_dir(record.run)
    changed = [
        (
            f"What changed in the data {f'of {now.dataset}' if now.dataset else ''}".rstrip(),
            data_changes.page_of(now.run_dir, before.run_dir),
        )
        for now, before in _compared_data(series, record)
    ]
    other = record.compared_with
    named = [
        *(
            (f"Curation of {folder.parent.name}", folder / "report.html")
            for folder in run_files.curate_dirs(run_dir)
        ),
        *changed,
        ("Evaluation", run_dir / "evaluate" / "report.html"),
        ("Model card", run_dir / "MODEL_CARD.md"),
        *(
            [(f"Retraining {other}, which was in use", series.run_dir(other) / FILE)]
            if other
            else []
        ),
        ("Lineage: data, training and evaluation by digests", run_dir / "lineage.json"),
        ("History of the series", series.folder / HISTORY),
    ]
    items = [
        _link(path, text, run_dir) for text, path in named if path.is_file() or path.name == HISTORY
    ]
    body = Markup("<ul>{}</ul>").format(Markup("").join(map(Markup("<li>{}</li>").format, items)))
    if record.export:
        export = page.clean(str(run_dir / record.export), 400)
        body += Markup("<p>To load: <code>{}</code></p>").format(export)
    command = f"python -m workflows.lineage {shlex.quote(record.run)}"
    root = "" if series.root == Path("runs") else f" --root {shlex.quote(str(series.root))}"
    return body + Markup(
        '<p class="note">Every pair that it was trained on: <code>{}</code></p>'
    ).format(page.clean(command + root, 400))


def _link(path: Path, text: str, run_dir: Path) -> Markup:
    relative = Path(os.path.relpath(path, run_dir)).as_posix()
    return Markup('<a href="{}">{}</a>').format(quote(relative), page.clean(text, 200))


def _provenance(record: Record) -> Markup:
    steps = [
        [name, day(step.started), _minutes(_seconds(step)), step.exit_code]
        for name, step in record.steps.items()
    ]
    known: dict[str, Any] = record.provenance
    rows = [["arguments", " ".join(record.arguments)], ["inputs", record.inputs]]
    rows += [
        ["revision", known.get("revision") or "unknown"],
        ["python", known.get("python", "unknown")],
    ]
    rows += [[name, version] for name, version in known.get("packages", {}).items()]
    body = (
        page.table(["Step", "Last start, UTC", "Took", "Exit code"], steps) if steps else Markup("")
    )
    values = [[name, page.quote(str(value), 400)] for name, value in rows if value]
    return body + page.details("Command, code and versions", page.table(["What", "Value"], values))
