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
from evaluate import evaluators, headline
from evaluate.glossary import TERMS, glossary, shown, title
from evaluate.results import NOT_MEASURED, Results, label_of

_THUMBNAIL_PX = 256
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
    sections = [
        Section("Verdict", "verdict", _verdict(found)),
        Section("Checks", "checks", _checks(found)),
        Section("Pictures", "pictures", _pictures(found, folder, real)),
        *(
            section
            for evaluator in evaluators.in_order().values()
            for section in evaluator.sections(found)
        ),
        Section("All metrics", "metrics", _metrics(found)),
        Section("Data", "data", _data(funnel)),
        Section("Not measured", "not-measured", _not_measured(found)),
        Section("Glossary", "glossary", _glossary()),
        Section("Provenance", "provenance", _provenance(found)),
    ]
    model = found.provenance["finetune"]["model"]["path"]
    method = found.provenance["finetune"]["method"]["name"]
    subtitle = f"{method} fine-tuning of {page.clean(str(model))}, judged on held-out pictures"
    return page.render(page.Page(f"Run {page.clean(found.run)}", subtitle, sections))


def _verdict(found: Results) -> Markup:
    verdict = found.verdict
    body = headline.banner(found) + headline.tiles(found)
    body += Markup("<p><strong>Next.</strong> {}</p>").format(verdict.advice)
    if verdict.exported != verdict.kept:
        change = _CHANGE.shown(headline.checkpoint(found, verdict.exported).val)
        body += page.paragraph(
            f"The export holds another checkpoint than the kept one: step {verdict.exported:,}, which had "
            f"the lowest held-out loss while training. Its held-out loss against the base: {change}.",
            "note",
        )
    return body


def _checks(found: Results) -> Markup:
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


def _pictures(found: Results, folder: Path, real: Mapping[str, Image.Image]) -> Markup:
    columns = _columns(found)
    sampler = found.provenance["evaluate"]["sampler"]
    seed = found.provenance["evaluate"]["samples"]["seed"]
    rows = []
    for picture in found.pictures:
        row: list[Any] = [page.quote(picture.caption)]
        for label, name in columns.items():
            with Image.open(folder / picture.files[label]) as image:
                uri = page.thumbnail(image.convert("RGB"), _THUMBNAIL_PX)
            row.append(_cell(uri, f"{picture.caption} – {name}, seed {seed}"))
        uri = page.thumbnail(real[picture.key], _THUMBNAIL_PX)
        row.append(_cell(uri, f"{picture.caption} – the held-out picture"))
        rows.append(row)
    lead = page.paragraph(
        "Captions of held-out pictures. In a row, all columns start from the same noise; the last column "
        "is the caption's own picture, which was not trained on."
    )
    note = page.paragraph(
        f"{sampler['name']}, {sampler['steps']} steps, guidance {sampler['guidance_scale']:g}, "
        f"seed {seed}; originals in samples/.",
        "note",
    )
    grid = page.table(["Caption", *columns.values(), "Held-out picture"], rows, stacked=True)
    return lead + Markup('<div class="pictures">{}</div>').format(grid) + note


def _cell(uri: str, alt: str) -> Markup:
    return Markup('<img src="{}" alt="{}">').format(uri, page.clean(alt))


def _columns(found: Results) -> dict[str, str]:
    """Label of the files => heading; base, kept and last where they differ."""
    steps = {0: ["Base"]}
    for name in ("kept", "last"):
        steps.setdefault(getattr(found.verdict, name), []).append(name.capitalize())
    return {
        label_of(step): " = ".join(names) + (f" (step {step:,})" if step else "")
        for step, names in sorted(steps.items())
    }


def _metrics(found: Results) -> Markup:
    measured = {
        name: found.metrics[name]
        for name in evaluators.descriptions()
        if name in found.metrics and found.metrics[name].value is not None
    }
    rows = [[title(name), shown(name, metric), metric.n or ""] for name, metric in measured.items()]
    return page.table(["Metric", "Value", "Pictures"], rows)


def _data(funnel: Mapping[str, Any] | None) -> Markup:
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
    later = [
        ["Copies of training pictures", "this version does not look for them"],
        ["What the base model could do and this one cannot", "this version does not measure it"],
    ]
    missing = [
        [", ".join(titles), reason] for reason, titles in headline.missing(found.metrics).items()
    ]
    return page.table(["What", "Why not"], missing + later)


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
    return body
