"""``MODEL_CARD.md`` of a judged run, in the form of the Hugging Face hub: a YAML header, then Markdown.

Beside an export that is published it is called ``README.md``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from curate import credits as credit
from curate.run.files import write_text
from curate.run.manifest import read_funnel
from curate.run.schema import UserError
from evaluate.outputs import headline
from evaluate.outputs.glossary import shown, title
from evaluate.outputs.summary import plain
from evaluate.results import NOT_ASKED, Results, load
from finetune.drawing.as_trained import AsTrained
from finetune.methods import METHODS
from finetune.methods.adapters import kohya
from finetune.models.config import PACKAGES
from finetune.retention import scale
from workflows.retraining import lineage, run_files, summary
from workflows.retraining.record import Record
from workflows.retraining.series import Series

FILE = "MODEL_CARD.md"
OTHER, UNKNOWN = "other", "unknown"  # identifiers of the hub
_OWNERS = 30  # that are named

# Creative Commons' licences in words or by address, each with its version.
_CC = re.compile(
    r"(?:cc|creativecommons\.org/licenses/)[\s/_-]*(by(?:-(?:nc-sa|nc-nd|nc|nd|sa))?)[\s/_-]*v?(\d\.\d)",
    re.IGNORECASE,
)
_CC_OF_THE_HUB = {
    "by": "2.0 2.5 3.0 4.0",
    "by-sa": "3.0 4.0",
    "by-nc": "2.0 3.0 4.0",
    "by-nd": "4.0",
    "by-nc-nd": "3.0 4.0",
    "by-nc-sa": "2.0 3.0 4.0",
}
_OTHERS = {
    r"^cc[\s_-]*0\b|publicdomain/zero": "cc0-1.0",
    r"^apache[\s,-]*(licen[cs]e[\s,]*)?(version\s*)?2(\.0)?$": "apache-2.0",
    r"^mit([\s-]+licen[cs]e)?$": "mit",
}


def write(series: Series, record: Record) -> Path:
    """Write the card of a run; returns its path.

    Raises:
        UserError: a file that it is made from is damaged.
    """
    path = series.run_dir(record.run) / FILE
    write_text(path, render(series.run_dir(record.run), record))
    return path


def identifier(licence: str) -> str:
    """A licence as the hub names it; "" for one that it has no name for.

    >>> identifier("CC BY-SA 4.0, OpenMoji"), identifier("http://creativecommons.org/licenses/by-nc/2.0/"), identifier("?")
    ('cc-by-sa-4.0', 'cc-by-nc-2.0', '')
    """
    if found := _CC.search(licence):
        kind, version = found[1].lower(), found[2]
        return f"cc-{kind}-{version}" if version in _CC_OF_THE_HUB[kind].split() else ""
    text = licence.strip().lower()
    return next((name for said, name in _OTHERS.items() if re.search(said, text)), "")


def licence_of(stated: Iterable[str]) -> str:
    """The hub's identifier for a model that was trained on pictures of these licences.

    ``unknown`` where none is stated; ``other`` where there are several, or one that it has no name for.

    >>> licence_of(["CC0", "CC0 1.0"]), licence_of([]), licence_of(["CC0", "not stated"])
    ('cc0-1.0', 'unknown', 'other')
    """
    all_of = set(stated)
    if all_of <= {credit.NOT_STATED}:
        return UNKNOWN
    found = {identifier(each) for each in all_of}
    return OTHER if len(found) > 1 or "" in found else found.pop()


@dataclass(frozen=True)
class _Facts:
    """What a card is written from."""

    run_dir: Path
    record: Record
    results: Results | None
    config: Mapping[str, Any]
    licences: Mapping[str, int]

    @property
    def base(self) -> str:
        return str(self.config.get("model", {}).get("path", "unknown"))

    @property
    def method(self) -> str:
        return str(self.config.get("method", {}).get("name", "unknown"))

    @property
    def is_adapter(self) -> bool:
        return self.method != "full"

    @property
    def base_is_of_the_hub(self) -> bool:
        here = any((folder / self.base).is_dir() for folder in (Path(), PACKAGES))
        return not here and re.fullmatch(r"[\w.-]+/[\w.-]+", self.base) is not None


def render(run_dir: Path, record: Record) -> str:
    """The card's text; what a stage did not leave is left out."""
    report = run_dir / "evaluate" / "report.json"
    licences: dict[str, int] = {}
    for folder in run_files.curate_dirs(run_dir):
        for name, count in lineage.licences(folder).items():
            licences[name] = licences.get(name, 0) + count
    results = load(report) if report.is_file() else None
    known = _Facts(run_dir, record, results, run_files.training_config(run_dir), licences)
    parts = (_what, _how_to_load, _data, _training, _evaluation, _limits, _gate, _code)
    body = [line for part in parts for line in (*part(known), "")]
    return "\n".join([*_header(known), "", f"# {plain(record.run)}", "", *body]).rstrip() + "\n"


def _header(known: _Facts) -> list[str]:
    licence = licence_of(known.licences)
    content: dict[str, Any] = {"license": licence}
    if licence == OTHER:
        content |= {"license_name": "see-training-data", "license_link": "#training-data"}
    if known.base_is_of_the_hub:
        relation = "adapter" if known.is_adapter else "finetune"
        content |= {"base_model": known.base, "base_model_relation": relation}
    tags = ["text-to-image", "diffusers", *(["lora"] if known.is_adapter else []), "darkroom"]
    content |= {"library_name": "diffusers", "pipeline_tag": "text-to-image", "tags": tags}
    return ["---", yaml.safe_dump(content, sort_keys=False, allow_unicode=True).rstrip(), "---"]


def _what(known: _Facts) -> Iterator[str]:
    record = known.record
    yield (
        f"Fine-tuned from `{known.base}` with method={known.method}: retraining {record.number} of the series "
        f"{plain(record.series)}."
    )
    if record.start_from:
        yield f"It began with the export of {plain(record.start_from)}, not with the base itself."
    if known.results and (scaled := known.results.provenance.get("scale")):
        choice = scale.of_json(scaled)
        rule = f", by this rule: {choice.rule}" if choice.rule else ""
        yield f"The export is {choice.scale:g} of what was trained{rule}."
    yield ""
    yield f"**{record.outcome or 'not ended'}**: {plain(record.sentence)}"


def _how_to_load(known: _Facts) -> Iterator[str]:
    yield "## How to load"
    yield ""
    if not known.record.export:
        yield "There is nothing to load: the base model is better than every checkpoint."
        return
    yield (
        f"The weights, of step {known.record.kept:,}, are in `{known.record.export}`, a path from this card's folder. "
        "From the folder in which the retraining is started:"
    )
    yield ""
    path = (known.run_dir / known.record.export).as_posix()
    kind = METHODS.get(known.method, METHODS["lora" if known.is_adapter else "full"])
    yield from [
        "```python",
        *kind().python(known.base, path),
        'pipe("a lighthouse at dusk").images[0].save("lighthouse.png")',
        "```",
    ]
    for note in AsTrained.of(known.config).notes:
        yield ""
        yield note
    if file := kohya.file_of(known.run_dir / known.record.export):
        yield ""
        yield f"ComfyUI, AUTOMATIC1111 and their kin load `{plain(file.name)}` in that folder."


# Data


def _data(known: _Facts) -> Iterator[str]:
    yield "## Training data"
    weights = run_files.weights(known.run_dir)
    for folder in run_files.curate_dirs(known.run_dir):
        yield ""
        yield from _funnel(folder, weights.get(folder.parent.name))
    yield ""
    yield "### Licences and attribution"
    yield ""
    if not known.licences:
        yield "The ledger of the training data is not there, so their licences are not known."
        return
    yield from table(
        ["licence, as the source states it", "pictures"],
        [[n, f"{c:,}"] for n, c in known.licences.items()],
    )
    yield ""
    yield "The header's licence is that of the pictures, where all have one. The base model has its own, which holds as well."
    for folder in run_files.curate_dirs(known.run_dir):
        yield ""
        yield from _owners(folder)


def _funnel(curate_dir: Path, weight: float | None) -> Iterator[str]:
    funnel = read_funnel(curate_dir)
    if not funnel:
        return
    sides = ", ".join(f"{side} {count:,}" for side, count in funnel.get("samples", {}).items())
    drawn = "" if weight is None else f", drawn with the weight {weight:g}"
    yield (
        f"`{plain(curate_dir.parent.name)}`{drawn}: of {funnel['pairs_in']:,} pairs {funnel['kept']:,} are kept; pictures: {sides}. "
        "Pictures of val and test were never trained on by this run."
    )
    dropping = [rule for rule in funnel.get("rules", []) if rule["dropped"]]
    if dropping:
        yield ""
        rows = [[rule["rule"], f"{rule['dropped']:,}", f"{rule['left']:,}"] for rule in dropping]
        yield from table(["rule", "pairs dropped", "pairs left"], rows)


def _owners(curate_dir: Path) -> Iterator[str]:
    """Whose the pictures are, where the source names them, and the command that lists each."""
    try:
        pictures = credit.credited(curate_dir)
    except (FileNotFoundError, UserError):
        return
    names = [name for name in credit.NAMES if name in pictures and name != "title"]
    owners = [text for name in names for text in pictures[name].unique() if text]
    if owners:
        more = f" and {len(owners) - _OWNERS:,} more" if len(owners) > _OWNERS else ""
        yield f"Pictures by: {', '.join(map(plain, sorted(owners)[:_OWNERS]))}{more}."
        yield ""
    run = curate_dir.parent.name
    yield f"Each picture with its owner and licence, as far as the source names them: `python -m curate.credits {run}`"


# Training and judgement


def _training(known: _Facts) -> Iterator[str]:
    yield "## Training"
    yield ""
    names = ("method", "optim", "train", "ema", "model")
    shown_ = {name: known.config[name] for name in names if known.config.get(name)}
    if known.results is not None:
        verdict, last = known.results.verdict, known.results.checkpoints[-1]
        yield f"{verdict.last:,} steps, {last.samples_seen:,} samples; kept is step {verdict.kept:,}. {plain(verdict.sentence)}"
        yield ""
    yield from [
        "```yaml",
        yaml.safe_dump(shown_, sort_keys=False, allow_unicode=True).rstrip(),
        "```",
    ]


def _evaluation(known: _Facts) -> Iterator[str]:
    yield "## Evaluation"
    yield ""
    if known.results is None:
        yield "It was not judged."
        return
    for part, name in headline.PARTS.items():
        for finding in known.results.findings:
            if finding.part == part:
                yield f"- **{name}** ({headline.WORDS[finding.state]}): {plain(finding.text)}"
    if known.record.compared_with:
        yield f"- It was compared with {plain(known.record.compared_with)}, which was in use then."
    metrics = known.results.metrics
    rows = [
        [title(name), shown(name, metrics[name]), metrics[name].on, str(metrics[name].groups or "")]
        for name in summary.METRICS
        if name in metrics and metrics[name].value is not None
    ]
    yield ""
    yield from table(["metric", "value, 95 % interval", "on", "groups of pictures"], rows)


def _limits(known: _Facts) -> Iterator[str]:
    yield "## Limits"
    yield ""
    yield "- It was judged on held-out pictures of the same sources alone, and says nothing of other subjects."
    yield "- What its training data show and leave out, and the biases of the base model, show in its pictures."
    yield "- Prompt following is measured by one CLIP, which has blind spots of its own."
    if known.is_adapter:
        yield "- It was measured at the scale 1 of the adapter and with the base model that is named above."
    if known.results is None:
        return
    for finding in known.results.findings:
        if finding.part == "cost" and finding.state in ("bad", "warn"):
            yield f"- {plain(finding.text)}"
    for reason, titles in headline.missing(known.results.metrics).items():
        if not reason.startswith(NOT_ASKED):
            yield f"- Not measured: {plain(headline.joined(titles))} ({plain(reason)})."


def _gate(known: _Facts) -> Iterator[str]:
    yield "## Gate"
    yield ""
    if known.results is None:
        yield "It was not asked."
        return
    yield f"**{known.results.gate}**"
    yield ""
    rows = [[title(c.metric), c.measured, c.rule, c.status, c.why] for c in known.results.checks]
    yield from table(["metric", "measured", "rule", "status", "note"], rows)


def _code(known: _Facts) -> Iterator[str]:
    yield "## Code and versions"
    yield ""
    provenance = known.record.provenance
    rows = [["revision of the code", str(provenance.get("revision") or "unknown")]]
    rows += [["Python", str(provenance.get("python", "unknown"))]]
    rows += [[name, version] for name, version in provenance.get("packages", {}).items()]
    yield from table(["what", "version"], rows)
    yield ""
    yield "`lineage.json` beside this card has the digests of data, weights and exports."


def table(head: list[str], rows: Iterable[list[str]]) -> Iterator[str]:
    """A table in Markdown, whose cells are text and no markup."""
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    for row in rows:
        yield f"| {' | '.join(map(plain, row))} |"
