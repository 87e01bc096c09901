"""The curation report: one page that accounts for every pair and shows what the rules did."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup
from omegaconf import OmegaConf

from curate.decide.stage import Verdicts
from curate.report import (
    counts,
    drop_rates,
    duplicates,
    funnel,
    licences,
    page,
    planted,
    sheets,
    similarity,
)
from curate.report.page import Section
from curate.report.pictures import Pictures
from curate.run.files import write_text


def write(
    curate_dir: Path,
    settings: Mapping[str, Any],
    verdicts: Verdicts,
    figures: dict[str, Any],
    load: Callable[[str], bytes],
) -> None:
    """Write the report as one HTML file.

    Args:
        curate_dir: the run's curation, which gets ``report.html``.
        settings: the whole configuration as nested dictionaries; secrets are redacted here.
        verdicts: of all pairs.
        figures: those of ``figures.summarise``.
        load: the source's, location => bytes.
    """
    title = f"Curation of {settings['run']['name']}"
    subtitle = (
        f"{figures['pairs_in']:,} pairs of {settings['dataset']['name']}, "
        f"scored by {figures['clip_model']}"
    )
    sections = _sections(curate_dir, settings, verdicts, figures, Pictures(load))
    write_text(curate_dir / "report.html", page.render(page.Page(title, subtitle, sections)))


def _sections(
    curate_dir: Path,
    settings: Mapping[str, Any],
    verdicts: Verdicts,
    figures: dict[str, Any],
    pictures: Pictures,
) -> list[Section]:
    ledger = verdicts.ledger
    where = _ledger(curate_dir) + funnel.section(verdicts, figures)
    found = [
        Section("Where the pairs went", "funnel", where),
        Section("Similarity and the cut", "similarity", similarity.section(verdicts, figures)),
    ]
    if "planted" in figures:
        found.append(Section("Planted mismatches", "planted", planted.section(figures["planted"])))
    return [
        *found,
        *sheets.around_cut(verdicts, pictures),
        *sheets.extremes(verdicts, pictures),
        *sheets.by_reason(verdicts, pictures),
        *sheets.unreadable(verdicts),
        Section("Duplicates", "duplicates", duplicates.section(ledger, pictures)),
        Section("What the filter takes away", "loss", drop_rates.section(verdicts)),
        Section("Licences", "licences", licences.section(ledger)),
        Section("Settings", "settings", _settings(settings)),
    ]


def _ledger(curate_dir: Path) -> Markup:
    """How to get at the pairs behind a number."""
    explained = (
        "Each number of pairs answers a query: point at the number, or unfold the list below its table. "
        "Without len( ) the query gives the pairs themselves. To begin, type in Python:"
    )
    return page.paragraph(explained, "note") + counts.loading(curate_dir)


def _settings(settings: Mapping[str, Any]) -> Markup:
    from curate.run.provenance import provenance, redacted

    content = {**redacted(dict(settings)), "provenance": provenance()}
    return page.details("Everything", Markup("<pre>{}</pre>").format(OmegaConf.to_yaml(content)))
