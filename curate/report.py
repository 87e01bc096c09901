"""The curation report: the funnel, the similarities with their cut, and the pairs on either side."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
from markupsafe import Markup
from omegaconf import OmegaConf

from curate import funnel, page
from curate.config import CurateConfig
from curate.decide import Verdicts
from curate.files import write_text
from curate.images import UnreadableImage, decode

SHEET_PAIRS = 18
THUMBNAIL_PX = 128


def write(
    path: Path,
    config: CurateConfig,
    verdicts: Verdicts,
    figures: dict[str, Any],
    load: Callable[[str], bytes],
) -> None:
    """Write the report as one HTML file.

    ``figures`` are those of ``funnel.summarise``, ``load`` is the source's.
    """
    sections = [
        page.Section("Where the pairs went", "funnel", _funnel(figures)),
        page.Section("Similarity and the cut", "similarity", _similarity(verdicts, figures)),
    ]
    if "planted" in figures:
        sections.append(page.Section("Planted mismatches", "planted", _planted(figures["planted"])))
    sections += _sheets(verdicts, load)
    sections.append(page.Section("Settings", "settings", _settings(config)))
    subtitle = (
        f"{figures['pairs_in']:,} pairs of {config.dataset.name}, scored by {figures['clip_model']}"
    )
    content = page.render(page.Page(f"Curation of {config.run.name}", subtitle, sections))
    write_text(path, content)


def _funnel(figures: dict[str, Any]) -> Markup:
    total = figures["pairs_in"]
    samples = figures["samples"]
    tiles = [
        (f"{total:,}", "pairs in"),
        (f"{figures['kept']:,}", f"kept ({figures['kept'] / total:.0%})"),
        (f"{figures['dropped']:,}", "dropped"),
        (f"{figures['unreadable']:,}", "unreadable"),
        *((f"{count:,}", f"images in {side}") for side, count in samples.items()),
    ]
    rows = [[r["rule"], r["dropped"], r["left"]] for r in figures["rules"]]
    reasons = [[reason, count] for reason, count in figures["reasons"].items()]
    parts = [
        page.tiles(tiles),
        page.figure(
            _funnel_chart(figures),
            "Pairs left after each rule that took any, in order.",
            "bars of pairs left",
        ),
        page.table(["rule", "pairs taken", "pairs left"], rows),
        page.details("Every reason", page.table(["reason", "pairs"], reasons)),
        *(page.paragraph(note, "note") for note in figures["notes"]),
    ]
    return Markup("").join(parts)


def _funnel_chart(figures: dict[str, Any]) -> Markup:
    rules = [rule for rule in figures["rules"] if rule["dropped"]]
    names = ["pairs in", *(rule["rule"] for rule in rules)]
    left = [figures["pairs_in"], *(rule["left"] for rule in rules)]
    taken = [0, *(rule["dropped"] for rule in rules)]
    drawing, axes = page.subplots(7.5, 0.3 * len(names) + 0.6)
    axes.barh(names, left, color=page.BLUE, label="left")
    axes.barh(names, taken, left=left, color=page.ORANGE, label="taken by this rule")
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("pairs")
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2)
    return page.svg(drawing)


def _similarity(verdicts: Verdicts, figures: dict[str, Any]) -> Markup:
    scored = verdicts.ledger[verdicts.ledger["clip_similarity"].notna()]
    if scored.empty:
        return page.paragraph("No pair has a similarity.")
    sentence = f"Cut: {funnel.describe_cut(figures['cut'])}."
    caption = (
        "CLIP similarity of the pairs, and of the same images with captions of other images "
        "(the null). The further apart, the better this CLIP knows these data."
    )
    chart = _histogram(scored, verdicts)
    parts = [
        page.paragraph(sentence),
        page.figure(chart, caption, "histogram of similarities with the cut"),
    ]
    if len(verdicts.null.similarities):
        parts.append(page.details("What other cuts would keep", _other_cuts(scored, verdicts)))
    return Markup("").join(parts)


def _histogram(scored: pd.DataFrame, verdicts: Verdicts) -> Markup:
    import numpy as np

    null = verdicts.null.similarities
    both = np.concatenate([scored["clip_similarity"].to_numpy(), null])
    edges = np.linspace(both.min(), both.max() + 1e-6, 61)
    drawing, axes = page.subplots(7.5, 3.2)
    series = [("pairs", scored["clip_similarity"], page.BLUE)]
    if "planted_mismatch" in scored and scored["planted_mismatch"].any():
        wrong = scored["planted_mismatch"].astype(bool)
        series = [
            ("true pairs", scored.loc[~wrong, "clip_similarity"], page.BLUE),
            ("planted mismatches", scored.loc[wrong, "clip_similarity"], page.VERMILLION),
        ]
    for label, values, colour in series:
        axes.hist(values, edges, density=True, color=colour, alpha=0.5, label=label)
    if len(null):
        density, _ = np.histogram(null, edges, density=True)
        axes.stairs(density, edges, color="black", linewidth=1.2, label="shuffled captions (null)")
    if verdicts.cut is not None:
        label = f"cut {verdicts.cut:.3f}"
        axes.axvline(verdicts.cut, color=page.VERMILLION, linestyle="--", label=label)
    axes.set_xlabel("CLIP similarity")
    axes.set_ylabel("density")
    axes.legend()
    return page.svg(drawing)


def _other_cuts(scored: pd.DataFrame, verdicts: Verdicts) -> Markup:
    rows = []
    for rate in (0.01, 0.02, 0.05, 0.1, 0.2):
        cut = verdicts.null.cut(rate)
        keeps = int((scored["clip_similarity"] >= cut).sum())
        rows.append([f"{rate:.0%}", f"{cut:.4f}", keeps, f"{keeps / len(scored):.1%}"])
    head = ["shuffled captions that pass", "cut", "scored pairs at or above", "share"]
    return page.table(head, rows)


def _planted(found: dict[str, Any]) -> Markup:
    rows = [
        ["planted mismatches removed by the cut", *_of(found, "mismatches_removed", "mismatches")],
        ["true pairs kept by the cut", *_of(found, "true_pairs_kept", "true_pairs")],
    ]
    before, after = found["mismatch_share_before"], found["mismatch_share_after"]
    change = (
        f"Wrong captions among the pairs: {before:.1%} before the cut, {after or 0:.1%} after it."
    )
    return page.table(["", "pairs", "of", "share"], rows) + page.paragraph(change)


def _of(found: dict[str, Any], part: str, whole: str) -> list[Any]:
    share = found[part] / found[whole] if found[whole] else float("nan")
    return [found[part], found[whole], f"{share:.1%}"]


def _sheets(verdicts: Verdicts, load: Callable[[str], bytes]) -> list[page.Section]:
    """The pairs just above and just below the cut; without a cut, the lowest and the highest."""
    scored = verdicts.ledger[verdicts.ledger["clip_similarity"].notna()]
    scored = scored.sort_values(["clip_similarity", "key", "caption_index"])
    if verdicts.cut is None:
        chosen = [
            ("Least similar", "lowest", scored.head(SHEET_PAIRS)),
            ("Most similar", "highest", scored.tail(SHEET_PAIRS).iloc[::-1]),
        ]
    else:
        above = scored["kept"] & (scored["clip_similarity"] >= verdicts.cut)
        below = scored["reason"].str.startswith("clip_similarity")
        chosen = [
            ("Just above the cut: kept", "above", scored[above].head(SHEET_PAIRS)),
            ("Just below the cut: dropped", "below", scored[below].tail(SHEET_PAIRS).iloc[::-1]),
        ]
    return [
        page.Section(title, anchor, _sheet(pairs, load))
        for title, anchor, pairs in chosen
        if len(pairs)
    ]


def _sheet(pairs: pd.DataFrame, load: Callable[[str], bytes]) -> Markup:
    return page.sheet(_card(row, load) for _, row in pairs.iterrows())


def _card(row: pd.Series, load: Callable[[str], bytes]) -> Markup:
    caption = Markup("<b>{}</b> {}").format(
        f"{row['clip_similarity']:.3f}", page.quote(row["caption"])
    )
    if row.get("planted_mismatch"):
        truth = page.quote(str(row["true_caption"]))
        caption += Markup("<br>{} true: {}").format(page.badge("bad", "planted"), truth)
    try:
        image = decode(load(row["location"]))
    except UnreadableImage as error:
        return page.figure(Markup(""), caption, error.reason)
    return page.figure(page.thumbnail(image, THUMBNAIL_PX), caption, row["caption"])


def _settings(config: CurateConfig) -> Markup:
    from curate.provenance import provenance, redacted

    content = {**redacted(asdict(config)), "provenance": provenance()}
    return page.details("Everything", Markup("<pre>{}</pre>").format(OmegaConf.to_yaml(content)))
