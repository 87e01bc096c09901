"""The page of a comparison: which run is better, in what, by how much, and on which pictures most."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup
from omegaconf import OmegaConf

from curate.report import page
from curate.report.page import Section
from curate.run.intervals import changes
from evaluate.comparison import (
    BETTER,
    LOSSES_BY_NAME,
    MOVED,
    SAME,
    UNKNOWN,
    WORSE,
    Comparison,
    Line,
    Moved,
    Pair,
    description,
)

if TYPE_CHECKING:
    from PIL import Image

_THUMBNAIL_PX = 192
_WIDTH = 7.5  # inches before the page scales figures to its own width
_KINDS = {BETTER: "good", WORSE: "bad", SAME: "info", UNKNOWN: "info"}

Drawn = Mapping[str, Sequence[Path | None]]
"""For each key, the picture that each run's kept checkpoint drew, in the order of the runs."""


def render(found: Comparison, real: Mapping[str, Image.Image], drawn: Drawn) -> str:
    """The page.

    Args:
        found: the numbers.
        real: the held-out pictures that moved most, by key.
        drawn: what the runs drew for their captions.
    """
    sections = [Section("Result", "result", _result(found))]
    sections += [
        Section(
            f"{page.clean(pair.other, 80)} against {page.clean(found.runs[0].name, 80)}",
            f"pair-{number}",
            _numbers(pair, found.runs[0].name),
        )
        for number, pair in enumerate(found.pairs, 1)
    ]
    sections += [
        Section(
            _of("Pictures that moved most", found, pair),
            f"moved-{number}",
            _pictures(found, number, real, drawn),
        )
        for number, pair in enumerate(found.pairs, 1)
        if pair.moved
    ]
    sections += [
        Section("Differences between the trainings", "trainings", _configuration(found)),
        Section("What was compared", "compared", _compared(found)),
        Section("Not compared", "not-compared", _missing(found)),
        Section("How to read this", "glossary", _glossary(found)),
        Section("Provenance", "provenance", _provenance(found)),
    ]
    names = [page.clean(side.name) for side in found.runs]
    title = f"{' and '.join(names[1:])} against {names[0]}"
    subtitle = (
        "Fine-tuned checkpoints compared picture by picture on pictures that none was trained on"
    )
    return page.render(page.Page(title, subtitle, sections))


def _of(title: str, found: Comparison, pair: Pair) -> str:
    return title if len(found.pairs) == 1 else f"{title}: {pair.other}"


def _result(found: Comparison) -> Markup:
    body = Markup("")
    for pair in found.pairs:
        others = {line.word for line in pair.lines}
        kind, word = _KINDS[pair.word], pair.word
        if kind == "good" and WORSE in others:
            kind, word = "warn", "better in loss, worse in something else"
        said = page.clean(pair.sentence, 2000)
        body += page.banner(kind, f"{page.clean(pair.other, 80)}: {word}", said)
    judged = [line.word for pair in found.pairs for line in pair.lines]
    return body + page.tiles(
        [
            (f"{found.pictures:,}", f"pictures of the split {found.on} in common"),
            (f"{found.groups:,}", "groups of near copies, each of which counts once"),
            (f"{judged.count(BETTER)} better, {judged.count(WORSE)} worse", "metrics"),
            (f"{found.comparisons:,}", "comparisons that are corrected for"),
        ]
    )


# Numbers


def _numbers(pair: Pair, reference: str) -> Markup:
    measured = [line for line in pair.lines if line.difference.value is not None]
    if not measured:
        return page.paragraph(page.clean(pair.sentence, 2000))
    rows = [
        [
            description(line.metric).title,
            _mean(line, line.reference),
            _mean(line, line.other),
            Markup('<b class="whole">{}</b>').format(difference(line)),
            probability(line.corrected),
            page.badge(_KINDS[line.word], line.word),
        ]
        for line in measured
    ]
    names = [f"{page.clean(reference, 40)} (reference)", page.clean(pair.other, 40)]
    head = ["Metric", *names, "Difference", "p", "Judgement"]
    notes = [
        page.paragraph(f"{description(line.metric).title}: {line.why}.", "note")
        for line in measured
        if line.why
    ]
    losses = [line for line in measured if line.metric in LOSSES_BY_NAME]
    drawing = Markup("")
    if losses:
        drawing = page.figure(_forest(losses), _caption(losses), _caption(losses))
    return drawing + page.table(head, rows) + Markup("").join(notes)


def _mean(line: Line, value: float | None) -> str:
    if value is None:
        return "–"
    return f"{changes(value)[0]} %" if description(line.metric).fraction else f"{value:+.3f}"


def difference(line: Line) -> str:
    """A line's difference with its interval, as it is printed; of fractions in points."""
    return description(line.metric).shown(line.difference).replace(" %", " points")


def probability(p: float | None) -> str:
    """A p value as it is printed.

    >>> probability(0.00002), probability(0.0312), probability(None)
    ('< 0.0001', '0.031', '–')
    """
    if p is None:
        return "–"
    return "< 0.0001" if p < 0.0001 else f"{p:.2g}"


def _caption(lines: Sequence[Line]) -> str:
    words = "; ".join(f"{description(line.metric).title}: {line.word}" for line in lines)
    return (
        f"{words}. Left of the line the run has less loss than the reference, which is better. Bars are 95 % "
        "intervals over groups of pictures, each for itself; judgements are corrected for their number."
    )


def _forest(lines: Sequence[Line]) -> Markup:
    """Each difference with its interval, the first on top."""
    drawing, axes = page.subplots(_WIDTH, 1.1 + 0.5 * len(lines))
    colours = {BETTER: page.GREEN, WORSE: page.VERMILLION}
    for row, line in enumerate(lines):
        of = line.difference
        assert of.value is not None
        assert of.low is not None
        assert of.high is not None
        colour = colours.get(line.word, page.BLUE)
        axes.plot([100 * of.low, 100 * of.high], [row, row], color=colour)
        axes.plot(100 * of.value, row, "o", color=colour)
    axes.axvline(0, color="black", linewidth=1)
    axes.set_yticks(range(len(lines)), [description(line.metric).title for line in lines])
    axes.set_ylim(len(lines) - 0.5, -0.5)
    axes.set_xlabel("difference in points of the base's loss")
    return page.svg(drawing)


# Pictures


def _pictures(
    found: Comparison, number: int, real: Mapping[str, Image.Image], drawn: Drawn
) -> Markup:
    pair = found.pairs[number - 1]
    sides = (0, number)
    improved = [moved for moved in pair.moved if moved.difference < 0]
    worsened = [moved for moved in pair.moved if moved.difference > 0]
    body = page.paragraph(
        f"Held-out pictures of the split val by the difference of their loss, {page.clean(pair.other)} minus "
        f"{page.clean(found.runs[0].name)}, up to {MOVED} of each direction. Chance alone makes some pictures move: "
        "they show where to look and prove nothing. In a row, drawings start from the same noise."
    )
    for title, rows in (("Improved most", improved), ("Worsened most", worsened)):
        if rows:
            body += page.heading(title)
            body += _rows(found, sides, rows, real, drawn)
    return body


def _rows(
    found: Comparison,
    sides: tuple[int, int],
    rows: Sequence[Moved],
    real: Mapping[str, Image.Image],
    drawn: Drawn,
) -> Markup:
    names = [_checkpoint(found, side) for side in sides]
    cells = []
    for moved in rows:
        text = Markup('{}<br><span class="note">{} points · {}</span>').format(
            page.quote(moved.caption), changes(moved.difference)[0], page.quote(moved.key, 60)
        )
        files = [drawn[moved.key][side] for side in sides]
        pictures = [_drawn(file, name, moved) for file, name in zip(files, names, strict=True)]
        shown = _image(real[moved.key], f"{moved.caption} – the held-out picture")
        cells.append([text, *pictures, shown])
    table = page.table(["Caption", *names, "Held-out picture"], cells, stacked=True)
    return Markup('<div class="pictures">{}</div>').format(table)


def _checkpoint(found: Comparison, side: int) -> str:
    run = found.runs[side]
    return f"{page.clean(run.name, 40)}, {f'step {run.kept:,}' if run.kept else 'the base'}"


def _drawn(file: Path | None, name: str, moved: Moved) -> Markup:
    from PIL import Image

    if file is None:
        return page.paragraph("not drawn", "note")
    with Image.open(file) as picture:
        return _image(picture.convert("RGB"), f"{moved.caption} – {name}")


def _image(picture: Image.Image, alt: str) -> Markup:
    uri = page.thumbnail(picture, _THUMBNAIL_PX)
    return Markup('<img src="{}" alt="{}">').format(uri, page.clean(alt))


# What was compared


def _configuration(found: Comparison) -> Markup:
    if not found.configuration:
        return page.paragraph("The trainings have the same configuration.")
    head = ["Key", *(page.clean(side.name, 40) for side in found.runs)]
    rows = [
        [Markup("<code>{}</code>").format(key), *map(_value, values)]
        for key, values in found.configuration.items()
    ]
    return page.table(head, rows)


def _value(value: Any) -> Markup:
    return Markup('<span class="whole">{}</span>').format(
        page.clean("–" if value is None else str(value))
    )


def _compared(found: Comparison) -> Markup:
    first = found.runs[0]
    rows = [
        [
            page.clean(side.name),
            f"step {side.kept:,}" if side.kept else "the base",
            "the reference's" if side.base == first.base else "another",
            page.clean(side.folder),
        ]
        for side in found.runs
    ]
    body = page.table(["Run", "Kept checkpoint", "Base model", "Folder"], rows)
    if any(side.base != first.base for side in found.runs):
        body += page.paragraph(
            f"The runs have different base models. All losses are in units of the base of {page.clean(first.name)}.",
            "warning",
        )
    counts = [f"{count:,} ({reason})" for reason, count in found.left_out.items()]
    body += page.paragraph(
        f"Compared are {found.pictures:,} pictures of the split {found.on} in {found.groups:,} groups, which all runs "
        f"measured and none was trained on, nor on near copies of them. Of the pictures of {page.clean(first.name)}, "
        f"left out: {', '.join(counts) or 'none'}."
    )
    settings = [[Markup("<code>{}</code>").format(k), str(v)] for k, v in found.settings.items()]
    return body + page.details(
        "Settings by which all were judged", page.table(["Key", "Value"], settings)
    )


def _missing(found: Comparison) -> Markup:
    rows = [
        [page.clean(pair.other), description(line.metric).title, line.difference.reason]
        for pair in found.pairs
        for line in pair.lines
        if line.difference.value is None
    ]
    if not rows:
        return page.paragraph("Every metric that the runs have values of by picture was compared.")
    return page.table(["Run", "Metric", "Why not"], rows)


def _glossary(found: Comparison) -> Markup:
    names = dict.fromkeys(line.metric for pair in found.pairs for line in pair.lines)
    rows = [[description(name).title, description(name).meaning] for name in names]
    rows += [
        ["Points", "Hundredths of the mean loss of the first run's base model on these pictures."],
        [
            "Reference",
            "The first run. Columns of losses show the change against its base model.",
        ],
        [
            "Interval",
            "95 %, by Student's t over groups: where the difference would fall if other pictures had been drawn.",
        ],
        [
            "p",
            "How often chance alone would make a difference as large, after Holm's correction for the number of "
            "comparisons on this page. Below 0.05 it counts.",
        ],
        [
            SAME.capitalize(),
            "The pictures do not decide it. It does not mean that the runs are equal: the interval says what is "
            "still possible.",
        ],
    ]
    return page.table(["Term", "Meaning"], rows)


def _provenance(found: Comparison) -> Markup:
    rows = [["revision", found.provenance["revision"] or "unknown"]]
    rows += [["python", found.provenance["python"]]]
    rows += [[name, version] for name, version in found.provenance["packages"].items()]
    digests = [[page.clean(side.name), side.losses_sha256, side.base] for side in found.runs]
    text = OmegaConf.to_yaml(OmegaConf.create(found.settings))
    return (
        page.details("Versions", page.table(["What", "Version"], rows))
        + page.details("Digests", page.table(["Run", "losses.npz", "Base model"], digests))
        + page.details("Settings", Markup("<pre>{}</pre>").format(text))
    )
