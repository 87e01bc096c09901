"""Which training pairs have captions that do not help the model?"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from markupsafe import Markup

from curate.report import page
from curate.report.page import Section
from curate.run.joined import named_runs
from curate.run.reconsider import FILE
from evaluate.evaluators import Description, Evaluator
from evaluate.results import DoubtResult, Metric, Results

if TYPE_CHECKING:
    from evaluate.evaluation import Evaluation

NAME = "pairs_to_reconsider"
_THUMBNAIL_PX = 192


def measure(evaluation: Evaluation) -> Iterator[tuple[str, Metric]]:
    """How many pairs ``reconsider.csv`` lists."""
    from evaluate.measure import reconsider

    gains = evaluation.caption_gains
    if gains is None:
        yield NAME, Metric(reason="left out by reconsider.pictures=0")
    elif why := reconsider.unknown(gains):
        yield NAME, Metric(n=len(gains.keys), on="train", reason=why)
    else:
        count = float(len(reconsider.listed(gains)))
        groups = len(set(gains.groups))
        yield NAME, Metric(count, n=len(gains.keys), groups=groups, on="train")


def sections(found: Results, folder: Path) -> Iterator[Section]:
    """The first of the pairs with their pictures, and what to type to take them out."""
    metric = found.metrics.get(NAME, Metric())
    if metric.value is not None:
        yield Section("Pairs to reconsider", "reconsider", _section(found, metric, folder))


def _section(found: Results, metric: Metric, folder: Path) -> Markup:
    measured = f"{metric.n:,} training pictures that are least similar to their captions"
    if not found.reconsider:
        return page.paragraph(f"Of {measured}, none has a caption that does not help the model.")
    count = len(found.reconsider)
    lead = page.paragraph(
        f"Of {measured}, {count:,} have a caption that does not help the model: its loss is no lower with the "
        "caption than with none. Their captions may be wrong, or may say what a picture does not show. Those "
        "that both the model and the curation's CLIP doubt most come first."
    )
    shown = page.sheet(_figure(doubt, folder) for doubt in found.reconsider if doubt.file)
    return lead + shown + _what_to_do(found)


def _figure(doubt: DoubtResult, folder: Path) -> Markup:
    from PIL import Image

    with Image.open(folder / doubt.file) as picture:
        uri = page.thumbnail(picture.convert("RGB"), _THUMBNAIL_PX)
    text = Markup('<b>{:+.1f} %</b> {}<br><span class="subtitle">{}{}</span>').format(
        100 * doubt.caption_gain,
        page.quote(doubt.caption, 120),
        page.quote(doubt.key, 60),
        "" if doubt.similarity is None else f" · similarity {doubt.similarity:.3f}",
    )
    return page.figure(uri, text, doubt.caption)


def _what_to_do(found: Results) -> Markup:
    run = found.provenance["evaluate"]["run"]
    data = found.provenance["finetune"].get("data") or {}
    root = Path(run["root"])
    table = root / run["name"] / "evaluate" / FILE
    names = sorted(data.get("runs") or [data.get("run") or run["name"]])
    curated, which = named_runs(root / name / "curate" for name in names)
    command = f"python -m curate.remove {curated} --from {shlex.quote(str(table))}"
    return page.paragraph(
        Markup(
            "The percentage is the caption gain: how much less the loss is with the caption than with none. All "
            "{} pairs are in {}. Nothing is removed by itself: look at them, delete the rows of the pairs that "
            "are right, then type <code>{}</code>{} and train again. python -m curate.explain {} KEY tells all "
            "that is known of one."
        ).format(len(found.reconsider), FILE, command, which, curated),
        "note",
    )


EVALUATOR = Evaluator(
    metrics={
        NAME: Description(
            "Pairs to reconsider",
            "Training pairs whose caption does not help the model: at the same noise, its loss is no lower with "
            "the caption than with none. Measured on the training pictures that the curation's CLIP found least "
            "similar to their captions.",
            fraction=False,
        )
    },
    measure=measure,
    pictures=sections,
    position=57,
)
