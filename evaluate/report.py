"""``report.html``: the verdict first, then what it rests on, in the order in which readers ask."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup
from omegaconf import OmegaConf
from PIL import Image

from curate.report import page
from curate.report.page import Section
from evaluate import plots
from evaluate.glossary import GLOSSARY, TERMS, shown, title
from evaluate.results import Results

_THUMBNAIL_PX = 256
_VERDICTS = {
    "improving": "good",
    "converged": "good",
    "overfitting": "warn",
    "regressing": "warn",
    "inconclusive": "info",
    "no_effect": "bad",
    "diverged": "bad",
}
_STATUSES = {
    "passed": "good",
    "warned": "warn",
    "failed": "bad",
    "undecided": "info",
    "skipped": "info",
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
        Section("Loss", "loss", _loss(found)),
        Section("Noise levels", "noise", _noise(found)),
        Section("Prompt following", "prompts", _alignment(found)),
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
    word = verdict.word.replace("_", " ").capitalize()
    kept = next(c for c in found.checkpoints if c.step == verdict.kept)
    heldout = found.metrics["heldout_change"]
    tiles = [
        (shown("heldout_change", heldout).split(" [")[0], "held-out loss, kept against base"),
        (
            f"step {kept.step:,}" if kept.step else "base",
            f"kept, after {kept.samples_seen:,} samples",
        ),
        (f"{heldout.n or 0:,}", "held-out pictures"),
        (found.gate, "gate"),
    ]
    following = found.metrics.get("clip_kept")
    if following and following.value is not None:
        tiles.insert(2, (f"{following.value:.2f}", "prompt following (real pictures: 1)"))
    body = page.banner(_VERDICTS[verdict.word], word, verdict.sentence) + page.tiles(tiles)
    body += Markup("<p><strong>Next.</strong> {}</p>").format(verdict.advice)
    if verdict.exported != verdict.kept:
        change = shown("exported_change", found.metrics["exported_change"])
        body += page.paragraph(
            f"The export holds another checkpoint than the kept one: step {verdict.exported:,}, which had "
            f"the lowest held-out loss while training. Against the base: {change}.",
            "note",
        )
    return body


def _checks(found: Results) -> Markup:
    if not found.checks:
        return page.paragraph("No rules were asked for (gate=none).", "note")
    rows = [
        [
            page.badge(_STATUSES[check.status], check.status),
            title(check.metric),
            Markup('<b class="whole">{}</b>').format(check.measured),
            Markup('<span class="whole">{}</span>').format(check.rule),
            check.why,
        ]
        for check in found.checks
    ]
    return page.table(["Status", "Metric", "Measured", "Demanded", "Remark"], rows)


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
        "Captions of held-out pictures. Each row starts from the same noise in every column; the last "
        "column is the picture that the caption came with, which this fine-tuning did not see."
    )
    note = page.paragraph(
        f"{sampler['name']}, {sampler['steps']} steps, guidance {sampler['guidance_scale']:g}, "
        f"seed {seed}; originals in samples/.",
        "note",
    )
    grid = page.table(["Caption", *columns.values(), "Held-out picture"], rows)
    return lead + Markup('<div class="pictures">{}</div>').format(grid) + note


def _cell(uri: str, alt: str) -> Markup:
    return Markup('<img src="{}" alt="{}">').format(uri, page.clean(alt))


def _columns(found: Results) -> dict[str, str]:
    """Label of the files => heading; base, kept and last where they differ."""
    steps = {0: ["Base"]}
    for name in ("kept", "last"):
        steps.setdefault(getattr(found.verdict, name), []).append(name.capitalize())
    return {
        (f"step-{step:08d}" if step else "base"): " = ".join(names)
        + (f" (step {step:,})" if step else "")
        for step, names in sorted(steps.items())
    }


def _loss(found: Results) -> Markup:
    rows = [
        [c.step, c.samples_seen, shown("heldout_change", c.val), shown("probe_change", c.probe)]
        for c in found.checkpoints
    ]
    detectable = found.metrics.get("detectable_change")
    power = (
        f" Changes of {shown('detectable_change', detectable)} or more can be seen with this many "
        "pictures."
        if detectable and detectable.value is not None
        else ""
    )
    caption = (
        f"{found.verdict.sentence} Bands are 95 % intervals over pictures; the dotted line is the "
        f"base model.{power}"
    )
    head = ["Step", "Samples seen", "Held-out, % of base", "Training pictures, % of base"]
    return page.figure(plots.loss_curves(found), caption, caption) + page.details(
        "The numbers", page.table(head, rows)
    )


def _noise(found: Results) -> Markup:
    caption = (
        "Blue is better than the base, red is worse. Little noise (left) tests detail, much noise "
        "(right) tests composition: the two can go different ways, which a mean hides. Empty columns "
        "are levels where the base has next to nothing left to predict."
    )
    return page.figure(plots.noise_levels(found), caption, caption)


def _alignment(found: Results) -> Markup:
    change = found.metrics["clip_change"]
    if change.value is None:
        return page.paragraph(f"Not measured: {change.reason}.", "note")
    clip = found.provenance["evaluate"]["clip"]["name"]
    caption = (
        f"CLIP similarity of pictures with the {change.n} held-out captions they were drawn for, kept "
        f"against base: {shown('clip_change', change)}, same seeds."
    )
    warning = (
        f"Measured with {page.clean(str(clip))}. Where this CLIP also chose the training pairs, the "
        "measure is circular: a picture can please the model that filtered the data and no one else."
    )
    figure = page.figure(plots.alignment(found), caption, caption)
    return figure + page.paragraph(warning, "note")


def _data(funnel: Mapping[str, Any] | None) -> Markup:
    if funnel is None:
        return page.paragraph("The run's curation left no funnel.json.", "note")
    samples = funnel["samples"]
    tiles = page.tiles(
        [(f"{funnel['pairs_in']:,}", "pairs in"), (f"{funnel['kept']:,}", "pairs kept")]
        + [(f"{samples[side]:,}", f"pictures in {side}") for side in ("train", "val", "test")]
    )
    rows = [[rule["rule"], rule["dropped"], rule["left"]] for rule in funnel["rules"]]
    link = Markup(
        '<p class="note">More in <a href="../curate/report.html">the curation report</a>.</p>'
    )
    return tiles + page.table(["Rule", "Pairs taken", "Pairs left"], rows) + link


def _not_measured(found: Results) -> Markup:
    later = [
        ["Copies of training pictures", "this version does not look for them"],
        ["What the base model could do and forgot", "there is no set of its own pictures to ask"],
        ["Distribution and variety (KID, precision, recall)", "too few pictures are drawn for it"],
    ]
    missing = [[title(n), m.reason] for n, m in found.metrics.items() if m.value is None]
    return page.table(["What", "Why not"], missing + later)


def _glossary() -> Markup:
    rows = [[name, meaning, ""] for name, meaning in TERMS.items()]
    rows += [
        [e.title, e.meaning, f"{e.better} is better" if e.better else ""] for e in GLOSSARY.values()
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
