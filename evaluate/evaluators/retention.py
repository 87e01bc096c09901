"""What became of that which the base could do, on pictures that it drew itself and on data of its own?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from curate.report import page
from curate.report.page import Section
from evaluate.evaluators import Description, Evaluator, cost
from evaluate.results import Finding, Metric, Results, RetentionPoint, label_of

if TYPE_CHECKING:
    from pathlib import Path

    from evaluate.evaluation import Evaluation
    from evaluate.measure.retention import Retention

# The metrics that say whether abilities of the base were lost: of the checkpoint to keep, and of the export.
FORGETTING, EXPORTED = "retention_loss_change", "retention_loss_change_exported"
# conf/gate/default.yaml has the same. Useful trainings of the starter raised the loss by 36 % and more, with
# all they cost in prompt following; trainings without effect by 0 %.
LARGEST_RISE = 0.25
LEFT_OUT = "left out by retention.items=0"
_PICTURE_PX = 256
_WIDTH = 7.5  # inches before the page scales figures to its own width


def measure(evaluation: Evaluation) -> Iterator[tuple[str, Metric]]:
    """The checkpoint to keep, the exported and the last one, against the base."""
    found = evaluation.retention
    if found is None:
        yield from dict.fromkeys(EVALUATOR.metrics, Metric(reason=LEFT_OUT)).items()
        return
    kept, last = evaluation.kept, evaluation.evidence.last
    yield FORGETTING, found.change(kept)
    yield EXPORTED, found.change(evaluation.exported)
    yield "retention_loss_change_last", found.change(last)
    yield from caption_gains(found, kept).items()
    yield "retention_data_change", found.change_on_data(kept)
    yield "retention_drift", found.drift(kept)


def caption_gains(found: Retention, kept: int) -> dict[str, Metric]:
    """How much lower the loss on the base's pictures is with their own prompts than with others', base and kept."""
    from evaluate.measure.caption_losses import CaptionLosses
    from evaluate.measure.retention import BASE_PICTURES, too_few
    from finetune.intervals import estimate

    names = [f"retention_caption_gain_{name}" for name in ("base", "kept", "change")]
    captions = [prompt.caption for prompt in found.prompts]
    gains = CaptionLosses(
        found.grid, found.rows, BASE_PICTURES, found.items, captions, found.losses
    )
    if few := too_few(gains.exchanged.own):
        return dict.fromkeys(names, few)
    base, after = gains.against_other(0), gains.against_other(kept)
    groups = gains.exchanged.own.groups
    return {
        name: Metric.of(estimate(values, groups), "base pictures")
        for name, values in zip(names, (base, after, after - base), strict=True)
    }


def findings(metrics: Mapping[str, Metric]) -> Iterator[Finding]:
    """A cost, if the loss on the base's own pictures rose more than the gate allows."""
    rise = "The kept checkpoint's loss on pictures that the base drew itself rose by"
    worse = f"{rise} more than {100 * LARGEST_RISE:g} %"
    same = f"{rise} no more than {100 * LARGEST_RISE:g} %"
    yield from cost(metrics, FORGETTING, "retention", worse, same, LARGEST_RISE)


def sections(found: Results) -> Iterator[Section]:
    """The loss on the base's own pictures over training."""
    yield Section("What the base could do", "retention", _section(found))


def _section(found: Results) -> Markup:
    change = found.metrics.get(FORGETTING, Metric(reason=LEFT_OUT))
    if change.value is None or found.retention is None:
        return page.paragraph(f"Not measured: {change.reason}.", "note")
    caption, points = _finding(found), found.retention.points
    rows = [[point.step, point.samples_seen, _shown(point.loss)] for point in points]
    head = ["Step", "Samples seen", "Loss on the base's pictures, against base"]
    return (
        page.figure(loss_curve(found, points), caption, caption)
        + page.details("The numbers", page.table(head, rows))
        + page.paragraph(
            "The base draws a picture for each neutral prompt, and every checkpoint's loss is measured on them. "
            "No model fits them better than the base, so nearly every training raises this loss; what counts is "
            "by how much. A new style raises it, too. Whether abilities are lost or only look different shows in "
            "the same-seed pictures of neutral prompts.",
            "note",
        )
    )


def pictures(found: Results, folder: Path) -> Iterator[Section]:
    """A row for each neutral prompt: the base, and the kept checkpoint from the same noise."""
    from PIL import Image

    if found.retention is None or not found.retention.pictures:
        return
    labels = {label: None for picture in found.retention.pictures for label in picture.files}
    heads = [
        "Base" if label == label_of(0) else f"Kept (step {found.verdict.kept:,})"
        for label in labels
    ]
    rows = []
    for number, picture in enumerate(found.retention.pictures):
        row: list[Any] = [page.quote(picture.caption)]
        for label, name in zip(labels, heads, strict=True):
            with Image.open(folder / picture.files[label]) as image:
                uri = page.thumbnail(image.convert("RGB"), _PICTURE_PX)
            row.append(page.zoomed(uri, f"{picture.caption} – {name}", f"neutral-{number}-{label}"))
        rows.append(row)
    lead = page.paragraph(
        "Prompts that are not about the training pictures. In a row, all columns start from the same noise, so "
        "what differs is what the training changed. Originals in retention/."
    )
    grid = page.table(["Prompt", *heads], rows, stacked=True)
    body = lead + Markup('<div class="pictures">{}</div>').format(grid)
    yield Section("Neutral prompts", "neutral", body)


def _finding(found: Results) -> str:
    kept, metrics = found.verdict.kept, found.metrics
    if kept == 0:
        last = metrics["retention_loss_change_last"]
        said = "The base is kept, so nothing was lost."
        if last.value is not None:
            said += (
                " On pictures that the base drew itself, the loss changed by "
                f"{_shown(last)} from the base to the last checkpoint."
            )
        return said
    change, drift = metrics["retention_loss_change"], metrics["retention_drift"]
    said = (
        f"On {change.n} pictures that the base drew itself for neutral prompts, the loss changed by "
        f"{_shown(change)} from the base to step {kept:,}."
    )
    if (data := metrics["retention_data_change"]).value is not None:
        said += f" On {data.n} pictures of the base's own data it changed by {_shown(data)}."
    if (gain := metrics["retention_caption_gain_change"]).value is not None:
        said += (
            " The gain from their own prompts, against those of other pictures, changed by "
            f"{_shown(gain)} of the base's loss."
        )
    if drift.value is not None:
        said += (
            f" From the same noise, its pictures differ from the base's by {drift.value:.2f} of the distance "
            "between pictures of different prompts."
        )
    return said


def _shown(metric: Metric) -> str:
    return EVALUATOR.metrics["retention_loss_change"].shown(metric)


def loss_curve(found: Results, points: Sequence[RetentionPoint]) -> Markup:
    """Loss on the base's own pictures against samples seen, with a 95 % band."""
    drawing, axes = page.subplots(_WIDTH, 3.2)
    points = [point for point in points if point.loss.value is not None]
    seen = [point.samples_seen for point in points]
    low, value, high = (
        [100 * getattr(point.loss, name) for point in points] for name in ("low", "value", "high")
    )
    axes.fill_between(seen, low, high, color=page.PURPLE, alpha=0.18, linewidth=0)
    axes.plot(seen, value, color=page.PURPLE, marker="o", markersize=3.5)
    axes.axhline(0, color="black", linewidth=0.8, linestyle=":")
    for point in points:
        _name(axes, found, point)
    axes.margins(x=0.05, y=0.25)
    axes.set_xlabel("samples seen")
    axes.set_ylabel("loss against the base, %")
    return page.svg(drawing)


def _name(axes: Any, found: Results, point: RetentionPoint) -> None:
    """Say which point is the base, the kept and the last one."""
    known = {"base": 0, "kept": found.verdict.kept, "last": found.verdict.last}
    names = [name for name, step in known.items() if step == point.step]
    if names:
        axes.annotate(
            " = ".join(names),
            (point.samples_seen, 100 * (point.loss.value or 0)),
            xytext=(0, 10),
            textcoords="offset points",
            ha="center",
        )


EVALUATOR = Evaluator(
    metrics={
        "retention_loss_change": Description(
            "Loss on the base's own pictures, kept against base",
            "Denoising loss on pictures that the base drew for neutral prompts, compared picture by picture. "
            "0 % is a model that forgot nothing of them.",
            tile="loss on the base's own pictures",
        ),
        EXPORTED: Description(
            "Loss on the base's own pictures, export against base",
            "The same for the checkpoint in the export.",
        ),
        "retention_loss_change_last": Description(
            "Loss on the base's own pictures, last against base",
            "The same for the last checkpoint.",
        ),
        "retention_caption_gain_base": Description(
            "Caption gain on the base's own pictures, base",
            "Loss of pictures that the base drew with another one's prompt minus loss with their own, same noise, in "
            "shares of the base's loss.",
            better="higher",
        ),
        "retention_caption_gain_kept": Description(
            "Caption gain on the base's own pictures, kept",
            "The same for the kept checkpoint.",
            better="higher",
        ),
        "retention_caption_gain_change": Description(
            "Caption gain on the base's own pictures, kept against base",
            "The difference of the two, picture by picture: below zero, prompts that the base understood matter less.",
            better="higher",
        ),
        "retention_data_change": Description(
            "Loss on the base's own data, kept against base",
            "The same on pairs of the data that the base was made from (retention.run).",
        ),
        "retention_drift": Description(
            "Same-seed drift on neutral prompts, kept",
            "How far the kept checkpoint's pictures of neutral prompts are from the base's that began with the "
            "same noise, as latents: 0 is the same picture, 1 as far as base pictures of different prompts are "
            "from each other. A new style moves all pictures.",
            better="",
            fraction=False,
        ),
    },
    measure=measure,
    sections=sections,
    pictures=pictures,
    findings=findings,
    position=42,
)
