"""The figures of the report, drawn from ``report.json``'s numbers alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from curate.report import page
from evaluate.results import CheckpointResult, Metric, Results

_WIDTH = 9.5  # inches at 72 dpi; the page scales figures to its own width


def loss_curves(found: Results) -> Markup:
    """Held-out and training-picture loss against samples seen, with 95 % bands."""
    drawing, axes = page.subplots(_WIDTH, 3.7)
    points = [c for c in found.checkpoints if c.val.value is not None and c.probe.value is not None]
    seen = [c.samples_seen for c in points]
    for name, metrics, colour, style in (
        ("held-out pictures", [c.val for c in points], page.BLUE, "-"),
        ("training pictures", [c.probe for c in points], page.ORANGE, "--"),
    ):
        low, value, high = (_percent(metrics, field) for field in ("low", "value", "high"))
        axes.fill_between(seen, low, high, color=colour, alpha=0.18, linewidth=0)
        axes.plot(seen, value, style, color=colour, label=name, marker="o", markersize=3.5)
    axes.axhline(0, color="black", linewidth=0.8, linestyle=":")
    _mark(axes, found, points)
    axes.set_xlabel("samples seen")
    axes.set_ylabel("loss against the base, %")
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderaxespad=0.2)
    return page.svg(drawing)


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
                xytext=(0, -14),
                textcoords="offset points",
                ha="center",
                va="top",
            )
    axes.margins(x=0.05, y=0.18)


def noise_levels(found: Results) -> Markup:
    """Change of the loss by noise level and checkpoint, held-out beside training pictures."""
    rows = found.checkpoints[1:]
    tables = [
        np.array([[np.nan if b is None else 100 * b for b in getattr(c, field)] for c in rows])
        for field in ("val_bins", "probe_bins")
    ]
    finite = np.abs(np.concatenate([t[np.isfinite(t)] for t in tables]))
    limit = float(np.percentile(finite, 98)) if finite.size else 1.0
    height = 1.5 + 0.28 * max(len(rows), 4)
    drawing, panels = page.subplots(_WIDTH, height, 1, 2, sharey=True)
    mesh = None
    for axes, table, name in zip(panels, tables, ("held-out", "training"), strict=True):
        # vivid colours on both themes: blue is better than the base, vermillion is worse
        mesh = axes.pcolormesh(
            table, cmap="RdBu_r", vmin=-max(limit, 0.1), vmax=max(limit, 0.1), edgecolors="none"
        )
        axes.set_title(f"{name} pictures", loc="left", fontsize=10)
        bins = table.shape[1]
        axes.set_xticks([0.5, bins / 2, bins - 0.5], ["detail", "structure", "composition"])
        for tick, align in zip(axes.get_xticklabels(), ("left", "center", "right"), strict=True):
            tick.set_ha(align)
        axes.grid(visible=False)
        axes.spines[:].set_visible(False)
    every = max(1, len(rows) // 10)
    ticks = range(0, len(rows), every)
    panels[0].set_yticks([t + 0.5 for t in ticks], [f"{rows[t].samples_seen:,}" for t in ticks])
    panels[0].set_ylabel("samples seen")
    bar = drawing.colorbar(mesh, ax=panels, label="change, %", aspect=12, pad=0.02)
    bar.outline.set_visible(False)
    return page.svg(drawing)


def alignment(found: Results) -> Markup:
    """Base and kept on the scale from wrong captions (0) to real pictures (1)."""
    drawing, axes = page.subplots(_WIDTH, 1.9)
    names = (("clip_kept", "kept", page.VERMILLION), ("clip_base", "base", page.BLUE))
    for row, (name, _, colour) in enumerate(names):
        metric = found.metrics[name]
        assert metric.value is not None
        assert metric.low is not None
        assert metric.high is not None
        axes.plot([metric.low, metric.high], [row, row], color=colour, linewidth=5, alpha=0.35)
        axes.plot(metric.value, row, "o", color=colour, markersize=9)
        axes.annotate(
            f"{metric.value:.2f}",
            (metric.value, row),
            xytext=(0, 8),
            textcoords="offset points",
            ha="center",
        )
    axes.axvline(0, color="black", linewidth=0.8, linestyle=":")
    axes.axvline(1, color="black", linewidth=0.8, linestyle=":")
    axes.set_yticks([0, 1], [label for _, label, _ in names])
    axes.set_ylim(-0.6, 1.8)
    axes.set_xlabel("0 is real pictures with wrong captions, 1 is real pictures with their own")
    axes.grid(visible=False, axis="y")
    return page.svg(drawing)
