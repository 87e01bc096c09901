"""``report.html``: the verdict, the checks and pictures, what each evaluator found, and every number."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup
from omegaconf import OmegaConf
from PIL import Image

from curate.report import page
from curate.report.page import Section
from evaluate import evaluators
from evaluate.outputs import export_scale, headline, pictures
from evaluate.outputs.glossary import TERMS, glossary, shown, title
from evaluate.results import NOT_MEASURED, Results

MOST_BYTES = 5_000_000  # of a page; a larger one is drawn with smaller pictures
_THUMBNAILS_PX = (384, 256, 160, 96)
_LONGEST_NOTE = 400
_CHANGE = evaluators.Description("Change", "Of a checkpoint's held-out loss, against the base.")
_STATUSES = {
    "passed": ("good", "passed"),
    "warned": ("warn", "warned"),
    "failed": ("bad", "failed"),
    "undecided": ("info", "undecided"),
    "skipped": ("info", NOT_MEASURED),
}


def render(
    found: Results, folder: Path, real: Mapping[str, Image.Image], funnel: Mapping[str, Any] | None
) -> str:
    """The page.

    Args:
        found: what was measured.
        folder: where the pictures' paths start.
        real: the held-out pictures themselves, by key.
        funnel: ``funnel.json`` of the curation, where there is one.
    """
    html = ""
    for longest_px in _THUMBNAILS_PX:
        html = _render(found, folder, real, funnel, longest_px)
        if len(html.encode()) <= MOST_BYTES:
            break
    return html


def _render(
    found: Results,
    folder: Path,
    real: Mapping[str, Image.Image],
    funnel: Mapping[str, Any] | None,
    longest_px: int,
) -> str:
    """The page with pictures whose longer side has at most so many pixels."""
    sections = [
        Section("Result, trend and costs", "headline", _headline(found)),
        Section("Checks", "checks", checks(found)),
        Section("Pictures", "pictures", pictures.table(found, folder, real, longest_px)),
        *(
            section
            for evaluator in evaluators.in_order().values()
            for section in (*evaluator.sections(found), *evaluator.pictures(found, folder))
        ),
        *export_scale.sections(found),
        Section("All metrics", "metrics", _metrics(found)),
        Section("Data", "data", _data(funnel, found.provenance["finetune"].get("data") or {})),
        Section("Not measured", "not-measured", _not_measured(found)),
        Section("Glossary", "glossary", _glossary()),
        Section("Provenance", "provenance", _provenance(found)),
    ]
    model = found.provenance["finetune"]["model"]["path"]
    method = found.provenance["finetune"]["method"]["name"]
    start = found.provenance.get("start")
    started = f", started with {page.clean(start['given'])}" if start else ""
    subtitle = (
        f"{method} fine-tuning of {page.clean(str(model))}{started}, judged on held-out pictures"
    )
    return page.render(page.Page(f"Run {page.clean(found.run)}", subtitle, sections))


def _headline(found: Results) -> Markup:
    verdict = found.verdict
    body = headline.banner(found) + headline.tiles(found)
    body += Markup("<p><strong>Next.</strong> {}</p>").format(verdict.advice)
    if verdict.exported != verdict.kept:
        on_val = headline.checkpoint(found, verdict.exported).val
        change = found.metrics.get("exported_change", on_val)  # on test, where there is one
        body += page.paragraph(
            f"The export holds another checkpoint than the kept one: step {verdict.exported:,}, which had "
            f"the lowest held-out loss while training. Its loss against the base, on "
            f"{headline.SPLITS.get(change.on, change.on)} pictures: {_CHANGE.shown(change)}.",
            "note",
        )
    if unmeasured := headline.missing(found.metrics):
        parts = [f"{headline.joined(titles)} ({reason})" for reason, titles in unmeasured.items()]
        body += page.paragraph(f"Not measured: {'; '.join(parts)}.", "note")
    return body


def checks(found: Results) -> Markup:
    """The gate's rules, each with what was measured."""
    if not found.checks:
        return page.paragraph("The gate has no rules (gate=none).", "note")
    rows = [
        [
            page.badge(*_STATUSES[check.status]),
            title(check.metric),
            Markup('<b class="whole">{}</b>').format(check.measured),
            Markup('<span class="whole">{}</span>').format(check.rule),
            page.quote(check.why, _LONGEST_NOTE) if check.why else "",
        ]
        for check in found.checks
    ]
    return page.table(["Status", "Metric", "Measured", "Rule", "Note"], rows)


def _metrics(found: Results) -> Markup:
    measured = {
        name: found.metrics[name]
        for name in evaluators.descriptions()
        if name in found.metrics and found.metrics[name].value is not None
    }
    rows = [
        [title(name), shown(name, metric), metric.on, metric.n or "", metric.groups or ""]
        for name, metric in measured.items()
    ]
    return page.table(["Metric", "Value", "Measured on", "Pictures", "Groups"], rows)


def _data(funnel: Mapping[str, Any] | None, data: Mapping[str, Any]) -> Markup:
    if weights := data.get("runs"):
        rows = [[name, f"{weight:g}"] for name, weight in sorted(weights.items())]
        said = "Trained on several curations; each has a report of its own. A picture counts as often as its weight."
        return page.paragraph(said) + page.table(["Curation", "Weight"], rows)
    if funnel is None:
        return page.paragraph("There is no funnel.json in the run's folder curate.", "note")
    samples = funnel["samples"]
    tiles = page.tiles(
        [(f"{funnel['pairs_in']:,}", "pairs in"), (f"{funnel['kept']:,}", "pairs kept")]
        + [(f"{samples[side]:,}", f"pictures in {side}") for side in ("train", "val", "test")]
    )
    rows = [[rule["rule"], rule["dropped"], rule["left"]] for rule in funnel["rules"]]
    link = Markup(
        '<p class="note">More in <a href="../curate/report.html">the curation report</a>.</p>'
    )
    return tiles + page.table(["Rule", "Pairs dropped", "Pairs left"], rows) + link


def _not_measured(found: Results) -> Markup:
    unmeasured = headline.missing(found.metrics, unasked=True)
    missing = [[", ".join(titles), reason] for reason, titles in unmeasured.items()]
    if not missing:
        return page.paragraph("Everything that this version measures was measured.")
    return page.table(["What", "Why not"], missing)


def _glossary() -> Markup:
    rows = [[name, meaning, ""] for name, meaning in TERMS.items()]
    rows += [
        [text.title, text.meaning, f"{text.better} is better" if text.better else ""]
        for text in glossary().values()
    ]
    return page.table(["Term", "Meaning", "Direction"], rows)


def _provenance(found: Results) -> Markup:
    known = found.provenance
    rows = [["revision", known["revision"] or "unknown"], ["python", known["python"]]]
    rows += [[name, version] for name, version in known["packages"].items()]
    body = page.details("Versions", page.table(["What", "Version"], rows))
    for name in ("curate", "finetune", "evaluate"):
        text = OmegaConf.to_yaml(OmegaConf.create(known[name]))
        what = "Fingerprint of the curation" if name == "curate" else f"Configuration of {name}"
        body += page.details(what, Markup("<pre>{}</pre>").format(text))
    if start := known.get("start"):
        text = OmegaConf.to_yaml(OmegaConf.create(start))
        body += page.details("What training started with", Markup("<pre>{}</pre>").format(text))
    return body
