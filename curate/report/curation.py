"""The curation report: one HTML page on which pairs were kept, which were dropped, and why."""

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
    headline,
    licences,
    not_fetched,
    page,
    planted,
    sheets,
    siblings,
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
        curate_dir: the run's ``curate`` folder; ``report.html`` is written there.
        settings: the whole configuration as nested dictionaries; secrets are redacted here.
        verdicts: on all pairs.
        figures: from ``figures.summarise``.
        load: reads an image of the source, location => bytes.
    """
    title = f"Curation of {settings['run']['name']}"
    subtitle = (
        f"{figures['pairs_in']:,} pairs of {settings['dataset']['name']}, "
        f"scored by {figures['clip_model'].rpartition(' ')[0]}"
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
    overview = headline.banner(verdicts, figures) + funnel.section(verdicts, figures)
    overview += _ledger(curate_dir)
    found = [
        Section("Pairs kept and dropped", "funnel", overview),
        Section("Similarity and the cut", "similarity", similarity.section(verdicts, figures)),
    ]
    if "not_fetched" in figures:
        body = not_fetched.section(curate_dir, ledger, figures["not_fetched"])
        found.insert(1, Section("Pictures that were not fetched", "not-fetched", body))
    if "planted" in figures:
        found.append(Section("Planted mismatches", "planted", planted.section(figures["planted"])))
    rates = drop_rates.section(verdicts)
    return [
        *found,
        *sheets.around_cut(verdicts, pictures),
        *sheets.extremes(verdicts, pictures),
        *sheets.by_reason(verdicts, pictures),
        *sheets.unreadable(verdicts),
        Section("Duplicates", "duplicates", duplicates.section(ledger, pictures)),
        Section("Siblings and the split", "siblings", siblings.section(verdicts, pictures)),
        Section("Which kinds of pairs the rules drop more often", "drop-rates", rates),
        Section("Licences", "licences", licences.section(ledger)),
        Section("Settings", "settings", _settings(settings)),
    ]


def _ledger(curate_dir: Path) -> Markup:
    """How to list the pairs behind a number."""
    text = (
        "Every number of pairs comes from a query: hover over the number, or open the list below its "
        "table. Without len( ) the query returns the pairs themselves. Load the ledger in Python first:"
    )
    return page.details(
        "How to list the pairs behind a number",
        page.paragraph(text, "note") + counts.loading(curate_dir),
    )


def _settings(settings: Mapping[str, Any]) -> Markup:
    from curate.run.provenance import provenance, redacted

    content = {**redacted(dict(settings)), "provenance": provenance()}
    return page.details(
        "All settings, with the versions used",
        Markup("<pre>{}</pre>").format(OmegaConf.to_yaml(content)),
    )
