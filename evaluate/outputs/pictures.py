"""The report's comparison of pictures: base, kept and last from the same noise, beside the real picture."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup
from PIL import Image

from curate.report import page
from evaluate.results import Results, label_of


def table(found: Results, folder: Path, real: Mapping[str, Image.Image], longest_px: int) -> Markup:
    """A row for each caption; a click enlarges a picture.

    Args:
        found: which pictures there are.
        folder: where their paths start.
        real: the held-out pictures themselves, by key.
        longest_px: pixels of the longer side in the page, at most.
    """
    columns = _columns(found)
    sampler = found.provenance["evaluate"]["sampler"]
    seed = found.provenance["evaluate"]["samples"]["seed"]
    rows = []
    for number, picture in enumerate(found.pictures):
        row: list[Any] = [page.quote(picture.caption)]
        for label, name in columns.items():
            with Image.open(folder / picture.files[label]) as image:
                uri = page.thumbnail(image.convert("RGB"), longest_px)
            alt = f"{picture.caption} – {name}, seed {seed}"
            row.append(page.zoomed(uri, alt, f"picture-{number}-{label}"))
        uri = page.thumbnail(real[picture.key], longest_px)
        alt = f"{picture.caption} – the held-out picture"
        row.append(page.zoomed(uri, alt, f"picture-{number}-real"))
        rows.append(row)
    lead = page.paragraph(
        "Captions of held-out pictures. In a row, all columns start from the same noise; the last column "
        "is the caption's own picture, which was not trained on. Click a picture to enlarge it."
    )
    note = page.paragraph(
        f"{sampler['name']}, {sampler['steps']} steps, guidance {sampler['guidance_scale']:g}, "
        f"seed {seed}; originals in samples/.",
        "note",
    )
    grid = page.table(["Caption", *columns.values(), "Held-out picture"], rows, stacked=True)
    return lead + Markup('<div class="pictures">{}</div>').format(grid) + note


def _columns(found: Results) -> dict[str, str]:
    """Label of the files => heading; base, kept and last where they differ."""
    steps = {0: ["Base"]}
    for name in ("kept", "last"):
        steps.setdefault(getattr(found.verdict, name), []).append(name.capitalize())
    return {
        label_of(step): " = ".join(names) + (f" (step {step:,})" if step else "")
        for step, names in sorted(steps.items())
    }
