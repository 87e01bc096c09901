"""Does the model draw its training pictures again?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from markupsafe import Markup

from curate.report import page
from curate.report.page import Section
from curate.run.intervals import wilson
from evaluate.evaluators import Description, Evaluator, FindingOn, cost
from evaluate.metrics.copying import MARGIN
from evaluate.results import CopiedPair, CopyingLook, CopyingResult, Finding, Metric, Results

if TYPE_CHECKING:
    from evaluate.evaluation import Evaluation
    from evaluate.measure.own_pictures import Look

SHARES = (
    "nearest_own_train_base",
    "nearest_own_train",
    "nearest_own_val_base",
    "nearest_own_val",
)
_THUMBNAIL_PX = 256


def measure(evaluation: Evaluation) -> Iterator[tuple[str, Metric]]:
    """The kept and the exported checkpoint, and how many were not kept since they copy."""
    from evaluate.measure.own_pictures import NotMeasured

    own = evaluation.own_pictures
    kept, exported = own.look(evaluation.kept), own.look(evaluation.exported)
    for name, look in (("copying", kept), ("copying_exported", exported)):
        if isinstance(look, NotMeasured):
            yield name, Metric(reason=str(look))
        else:
            yield name, Metric.of(look.found.difference, "train less val")
    if isinstance(kept, NotMeasured):
        yield from dict.fromkeys(SHARES, Metric(reason=str(kept))).items()
    else:
        yield from zip(SHARES, _shares(kept), strict=True)
    looks = [look for look in own.looks.values() if not isinstance(look, NotMeasured)]
    if looks:
        copies = sum(look.found.copies for look in looks)
        yield "copying_checkpoints", Metric(value=float(copies), n=len(looks), on="checkpoints")
    else:
        yield "copying_checkpoints", Metric(reason=str(exported))


def _shares(look: Look) -> Iterator[Metric]:
    found = look.found
    for split, nearest in (("train", found.own_train), ("val", found.own_val)):
        for own in nearest:
            low, high = wilson(float(own.sum()), len(own))
            yield Metric(float(own.mean()), low, high, n=len(own), groups=len(own), on=split)


def findings(metrics: Mapping[str, Metric]) -> Iterator[Finding]:
    """Of the kept checkpoint; and of the exported one, where that copies."""
    worse = "The kept checkpoint copies training pictures"
    same = "The kept checkpoint does not copy training pictures"
    yield from cost(metrics, "copying", "copying", worse, same, MARGIN)
    exported = metrics.get("copying_exported", Metric())
    if exported.low is not None and exported.low > MARGIN:
        text = f"The exported checkpoint copies training pictures: {nearer(exported)}."
        yield FindingOn("cost", "bad", text, "copying", "copying_exported")


def sections(found: Results) -> Iterator[Section]:
    """How far drawn pictures moved to their captions' own pictures, on both sides."""
    yield Section("Copying", "copying", _section(found))


def _section(found: Results) -> Markup:
    if found.copying is None:
        reason = found.metrics.get("copying", Metric(reason="left out")).reason
        return page.paragraph(f"Not measured: {reason}.", "note")
    caption = _finding(found, found.copying)
    head = [
        "Step",
        "Nearer to training than to held-out pictures by",
        "Nearest is its own: training (base)",
        "Nearest is its own: held-out (base)",
        "Blank pictures",
        "Copies",
    ]
    rows = [_row(look) for look in found.copying.looks]
    return (
        page.figure(strip(found.copying), caption, caption)
        + page.table(head, rows)
        + page.paragraph(
            "Pictures were drawn for training and for held-out captions, by base and checkpoint from the same "
            "noise. Learning a style brings both nearer to the captions' own pictures; copying brings those of "
            "training captions nearer than the others. Distances are of latents, and 1 is the distance between "
            f"two unrelated pictures. A checkpoint copies if the whole interval is above {MARGIN:g}.",
            "note",
        )
    )


def _finding(found: Results, result: CopyingResult) -> str:
    look = next(look for look in result.looks if look.step == result.step)
    number = nearer(look.difference)
    if look.copies:
        kept = found.verdict.kept
        instead = f"step {kept:,}" if kept else "the base"
        return (
            f"Step {look.step:,} copies training pictures. What it draws for training captions came nearer to "
            f"their own pictures than what it draws for held-out captions, by {number} of the distance between "
            f"unrelated pictures. Keep {instead}."
        )
    return (
        f"Step {look.step:,} does not copy training pictures measurably: relative to held-out captions, what it "
        f"draws for training captions came nearer to their own pictures by {number} of the distance between "
        "unrelated pictures."
    )


def nearer(difference: Metric) -> str:
    """The difference in differences as the report says it.

    >>> nearer(Metric(0.17, 0.04, 0.31, 96))
    '0.17 [0.04, 0.31]'
    """
    numbers = (difference.value, difference.low, difference.high)
    value, low, high = (round(x or 0.0, 2) + 0.0 for x in numbers)
    return f"{value:.2f} [{low:.2f}, {high:.2f}]"


def _row(look: CopyingLook) -> list[object]:
    return [
        look.step,
        nearer(look.difference),
        f"{look.own_train:.0%} ({look.own_train_base:.0%})",
        f"{look.own_val:.0%} ({look.own_val_base:.0%})",
        look.blank,
        page.badge("bad", "yes") if look.copies else page.badge("good", "no"),
    ]


def strip(result: CopyingResult) -> Markup:
    """How much nearer each picture came to its caption's own picture, and the means of both sides."""
    import numpy as np

    drawing, axes = page.subplots(7.5, 2.4)
    sides = (
        ("held-out\ncaptions", result.val, page.BLUE),
        ("training\ncaptions", result.train, page.VERMILLION),
    )
    for height, (_, values, colour) in enumerate(sides):
        spread = 0.22 * np.sin(
            np.arange(len(values)) * 2.4
        )  # so that equal values do not hide each other
        axes.plot(values, height + spread, "o", color=colour, markersize=3.5, alpha=0.45)
        mean = float(np.mean(values))
        axes.plot([mean, mean], [height - 0.36, height + 0.36], color=colour, linewidth=2.5)
    axes.axvline(0, color="black", linewidth=0.8, linestyle=":")
    axes.set_yticks([0, 1], [name for name, _, _ in sides])
    axes.set_ylim(-0.6, 1.6)
    axes.set_xlabel("how much nearer the caption's own picture came, against the base")
    axes.grid(visible=False, axis="y")
    return page.svg(drawing)


def pictures(found: Results, folder: Path) -> Iterator[Section]:
    """The most suspicious pairs, what was drawn beside the training picture nearest to it."""
    if found.copying is None or not found.copying.pairs:
        return
    result = found.copying
    lead = page.paragraph(
        f"What step {result.step:,} drew for training captions, beside the nearest of {result.searched:,} "
        "training pictures: those that came nearest to one, relative to what the base drew. Whether they are "
        "copies is for you to see; there are such pairs in every run."
    )
    rows = [_pair(number, pair, folder) for number, pair in enumerate(result.pairs)]
    head = ["Caption", "Drawn", "Nearest training picture", "Its caption", "Distance (base)"]
    grid = page.table(head, rows, stacked=True)
    body = lead + Markup('<div class="pictures">{}</div>').format(grid)
    yield Section("Most suspicious pairs", "suspicious-pairs", body)


def _pair(number: int, pair: CopiedPair, folder: Path) -> Sequence[object]:
    return [
        page.quote(pair.caption),
        _image(
            folder / pair.drawn,
            f"Drawn for the training caption {pair.caption}",
            f"suspicious-{number}-drawn",
        ),
        _image(
            folder / pair.nearest,
            f"Training picture {pair.nearest_key}, {pair.nearest_caption}",
            f"suspicious-{number}-nearest",
        ),
        Markup("{}<br><small>{}</small>").format(
            page.quote(pair.nearest_caption), page.clean(pair.nearest_key)
        ),
        f"{pair.distance:.2f} ({pair.base_distance:.2f})",
    ]


def _image(path: Path, alt: str, anchor: str) -> Markup:
    from PIL import Image

    with Image.open(path) as picture:
        uri = page.thumbnail(picture.convert("RGB"), _THUMBNAIL_PX)
    return page.zoomed(uri, alt, anchor)


_MEANING = (
    "How much more pictures drawn for training captions moved towards those captions' own pictures than "
    "pictures drawn for held-out captions did, against the base from the same noise. 1 is the distance "
    "between unrelated pictures."
)

EVALUATOR = Evaluator(
    metrics={
        "copying": Description("Copying, kept", _MEANING, fraction=False),
        "copying_exported": Description(
            "Copying, exported",
            "The same of the exported checkpoint.",
            fraction=False,
        ),
        "nearest_own_train_base": Description(
            "Nearest training picture is its own, base",
            "Share of pictures drawn for training captions whose nearest among those captions' pictures is "
            "the caption's own.",
            better="",
            signed=False,
        ),
        "nearest_own_train": Description(
            "Nearest training picture is its own, kept",
            "The same for the kept checkpoint. Copying brings it far above the base's and the held-out share.",
            signed=False,
        ),
        "nearest_own_val_base": Description(
            "Nearest held-out picture is its own, base",
            "The same for held-out captions among as many held-out pictures: the control.",
            better="",
            signed=False,
        ),
        "nearest_own_val": Description(
            "Nearest held-out picture is its own, kept",
            "The same for the kept checkpoint. It rises where captions are followed better.",
            better="higher",
            signed=False,
        ),
        "copying_checkpoints": Description(
            "Checkpoints that copy",
            "How many of the checkpoints that were looked at copy training pictures: the one with the best "
            "held-out loss, earlier ones until one does not copy, and the exported one.",
            fraction=False,
        ),
    },
    measure=measure,
    sections=sections,
    findings=findings,
    pictures=pictures,
    position=45,
)
