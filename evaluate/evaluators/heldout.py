"""Is a checkpoint better than the base model on pictures it was not trained on, and since when not?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup

from curate.report import page
from curate.report.page import Section
from evaluate.evaluators import Description, Evaluator, cost
from evaluate.results import NOT_ASKED, CheckpointResult, Finding, Metric, Results
from finetune.rules import NEGLIGIBLE, START

if TYPE_CHECKING:
    from evaluate.evaluation import Evaluation

_WIDTH = 7.5  # inches before the page scales figures to its own width
_MOST_LINES = 24  # of checkpoints in a panel that each have a line's height


def measure(evaluation: Evaluation) -> Iterator[tuple[str, Metric]]:
    """Changes of the held-out loss."""
    kept, best, last = evaluation.kept, evaluation.evidence.peak, evaluation.evidence.last
    yield "heldout_change", evaluation.change("val", kept)
    yield "exported_change", evaluation.gain(evaluation.exported)
    yield "heldout_change_last", evaluation.change("val", last)
    yield "heldout_since_best", evaluation.change("val", last, since=best)
    yield from _since_start(evaluation)


def _since_start(evaluation: Evaluation) -> Iterator[tuple[str, Metric]]:
    """Where training started with an export: what that is worth, and what training made of it."""
    names = ("start_change", "heldout_since_start")
    if evaluation.evidence.first == 0:
        reason = f"{NOT_ASKED}, training started with the base (method.init=null)"
        yield from ((name, Metric(reason=reason)) for name in names)
        return
    yield names[0], evaluation.change("val", START)
    yield names[1], evaluation.change("val", evaluation.kept, since=START)


def findings(metrics: Mapping[str, Metric]) -> Iterator[Finding]:
    """Whether the checkpoint to keep is better than what training started with."""
    worse = "The checkpoint to keep is worse than what training started with, on held-out pictures"
    same = (
        "The checkpoint to keep is no worse than what training started with, on held-out pictures"
    )
    yield from cost(metrics, "heldout_since_start", "loss", worse, same, margin=NEGLIGIBLE)


def sections(found: Results) -> Iterator[Section]:
    """The loss over training, and by noise level."""
    yield Section("Loss", "loss", _loss(found))
    yield Section("Noise levels", "noise", _noise(found))


def _loss(found: Results) -> Markup:
    shown = EVALUATOR.metrics["heldout_change"].shown
    rows = [
        [
            c.step,
            c.samples_seen,
            shown(c.val),
            shown(c.train_probe),
        ]
        for c in found.checkpoints
    ]
    caption = (
        f"{found.verdict.sentence} Bands are 95 % intervals over groups of pictures; the dotted line is "
        "the base model."
    )
    head = ["Step", "Samples seen", "Held-out, against base", "Training pictures, against base"]
    body = page.figure(loss_curves(found), caption, caption)
    body += page.details("The numbers", page.table(head, rows))
    if found.looks:
        looks = [[c.step, c.samples_seen, shown(c.val), shown(c.train_probe)] for c in found.looks]
        pictures = f"{found.looks[-1].val.n or 0:,} held-out pictures"
        body += page.details(
            f"Every evaluation while training ({pictures})", page.table(head, looks)
        )
    return body


def _noise(found: Results) -> Markup:
    caption = (
        "Blue is better than the base, red is worse. Little noise (left) tests detail, much noise "
        "(right) tests composition; one can improve while the other gets worse, which a mean hides. "
        "Empty columns are noise levels at which the base has almost nothing to predict."
    )
    return page.figure(noise_levels(found), caption, caption)


def loss_curves(found: Results) -> Markup:
    """Held-out and training-picture loss against samples seen, with 95 % bands."""
    drawing, axes = page.subplots(_WIDTH, 3.7)
    points = [
        c for c in found.checkpoints if c.val.value is not None and c.train_probe.value is not None
    ]
    seen = [c.samples_seen for c in points]
    for name, metrics, colour, style in (
        ("held-out pictures", [c.val for c in points], page.BLUE, "-"),
        ("training pictures", [c.train_probe for c in points], page.ORANGE, "--"),
    ):
        low, value, high = (_percent(metrics, field) for field in ("low", "value", "high"))
        axes.fill_between(seen, low, high, color=colour, alpha=0.18, linewidth=0)
        axes.plot(seen, value, style, color=colour, label=name, marker="o", markersize=3.5)
    _draw_looks(axes, found)
    axes.axhline(0, color="black", linewidth=0.8, linestyle=":")
    started = found.metrics.get("start_change", Metric()).value
    if started is not None:
        axes.axhline(
            100 * started,
            color=page.PURPLE,
            linewidth=0.9,
            linestyle="-.",
            label="held-out, what training started with",
        )
    _mark(axes, found, points)
    axes.set_xlabel("samples seen")
    axes.set_ylabel("loss against the base, %")
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=1, borderaxespad=0.2)
    return page.svg(drawing)


def _draw_looks(axes: Any, found: Results) -> None:
    """Training's own evaluations, which are more and on fewer pictures."""
    known = [look for look in found.looks if look.val.value is not None]
    if known:
        axes.plot(
            [look.samples_seen for look in known],
            _percent([look.val for look in known], "value"),
            "-",
            color=page.BLUE,
            linewidth=0.9,
            marker="x",
            markersize=4,
            alpha=0.55,
            label="held-out, measured while training",
        )


def _percent(metrics: Sequence[Metric], field: str) -> list[float]:
    return [100 * getattr(metric, field) for metric in metrics]


def _mark(axes: Any, found: Results, points: list[CheckpointResult]) -> None:
    """Name base, kept, best and last on the held-out curve; one label where they coincide."""
    names: dict[int, list[str]] = {0: ["base"]}
    for name in ("kept", "best", "last"):
        names.setdefault(getattr(found.verdict, name), []).append(name)
    for point in points:
        if point.step in names:
            kept = "kept" in names[point.step]
            y = 100 * (point.val.value or 0)
            axes.plot(
                point.samples_seen,
                y,
                "*" if kept else "o",
                color=page.VERMILLION if kept else page.BLUE,
                markersize=13 if kept else 6,
                zorder=5,
            )
            axes.annotate(
                " = ".join(names[point.step]),
                (point.samples_seen, y),
                xytext=(0, 14),  # above: training pictures have the lower curve
                textcoords="offset points",
                ha="center",
                va="bottom",
            )
    axes.margins(x=0.05, y=0.25)


def noise_levels(found: Results) -> Markup:
    """Change of the loss by noise level and checkpoint, held-out above training pictures."""
    rows = found.checkpoints[1:]
    tables = [
        np.array([[np.nan if b is None else 100 * b for b in getattr(c, field)] for c in rows])
        for field in ("val_bins", "train_probe_bins")
    ]
    finite = np.abs(np.concatenate([t[np.isfinite(t)] for t in tables]))
    limit = float(np.percentile(finite, 98)) if finite.size else 1.0
    height = 2.2 + 2 * 0.28 * min(max(len(rows), 4), _MOST_LINES)
    drawing, panels = page.subplots(_WIDTH, height, 2, 1, sharex=True)
    mesh = None
    for axes, table, name in zip(panels, tables, ("held-out", "training"), strict=True):
        # colours that are vivid on a light and on a dark page
        mesh = axes.pcolormesh(
            table, cmap="RdBu_r", vmin=-max(limit, 0.1), vmax=max(limit, 0.1), edgecolors="none"
        )
        axes.set_title(f"{name} pictures", loc="left")
        axes.grid(visible=False)
        axes.spines[:].set_visible(False)
        every = max(1, len(rows) // 8)
        ticks = range(0, len(rows), every)
        axes.set_yticks([t + 0.5 for t in ticks], [f"{rows[t].samples_seen:,}" for t in ticks])
        axes.set_ylabel("samples seen")
    bins = tables[0].shape[1]
    panels[-1].set_xticks([0, bins / 2, bins], ["detail", "structure", "composition"])
    labels = panels[-1].get_xticklabels()
    for tick, align in zip(labels, ("left", "center", "right"), strict=True):
        tick.set_ha(align)
    bar = drawing.colorbar(mesh, ax=panels, label="change, %", aspect=12, pad=0.02)
    bar.outline.set_visible(False)
    return page.svg(drawing)


EVALUATOR = Evaluator(
    metrics={
        "heldout_change": Description(
            "Held-out loss, kept against base",
            "Denoising loss on pictures that were not trained on: each noise level relative to the "
            "base model's, compared picture by picture.",
            tile="held-out loss, kept against base",
        ),
        "exported_change": Description(
            "Held-out loss, export against base",
            "The same for the checkpoint in the export, on the split 'test' where that is large enough: it "
            "had no part in choosing the checkpoint.",
        ),
        "heldout_change_last": Description(
            "Held-out loss, last against base", "The same for the last checkpoint."
        ),
        "heldout_since_best": Description(
            "Held-out loss, last against best",
            "What training beyond the best checkpoint, or beyond what it started with, cost, in points of the base "
            "model's loss.",
        ),
        "start_change": Description(
            "Held-out loss, start against base",
            "The same for the export that training started with (method.init).",
        ),
        "heldout_since_start": Description(
            "Held-out loss, kept against start",
            "What training made of the export that it started with, in points of the base model's loss.",
        ),
    },
    measure=measure,
    sections=sections,
    findings=findings,
    position=10,
)
