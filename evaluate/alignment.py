"""Prompt following: the curation CLIP's similarity of pictures with the captions they were drawn for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from curate.clip.scorer import ClipScorer
from evaluate import metrics
from evaluate.results import Metric
from finetune.intervals import Array, Bootstrap, Estimate

MIN_CAPTIONS = 16
LEAST_GAP = 1e-3  # between right and wrong captions, in cosine; equal ones differ by rounding
LEAST_KNOWN = 0.5  # of that gap, the lower end of its interval
NAMES = ("clip_base", "clip_kept", "clip_change")


def not_measured(reason: str) -> dict[str, Metric]:
    """The metrics of this module, all null."""
    return {name: Metric(reason=reason) for name in NAMES}


def measure(
    scorer: ClipScorer,
    captions: Sequence[str],
    real: Sequence[Image.Image],
    drawn: dict[str, list[Path]],
    bootstrap: Bootstrap,
) -> dict[str, Metric]:
    """Anchored CLIP scores of base and kept, and their paired difference.

    Args:
        scorer: the CLIP.
        captions: [N] held-out captions. real: [N] the pictures they belong to.
        drawn: [N] files under ``base`` and ``kept``, same seeds.
        bootstrap: intervals over captions.
    """
    pictures = {label: [_read(path) for path in paths] for label, paths in drawn.items()}
    rows = zip(*pictures.values(), strict=True)
    fine = [not any(map(metrics.is_flat, row)) for row in rows]
    if sum(fine) < MIN_CAPTIONS:
        return not_measured(
            f"{sum(fine)} captions with pictures that are not blank; at least {MIN_CAPTIONS} needed"
        )
    chosen = [i for i, good in enumerate(fine) if good]
    named = [captions[i] for i in chosen]
    if len(set(named)) < 2:
        return not_measured("all captions are the same, there are no wrong ones to compare with")
    texts = scorer.encode_texts(named)
    wrong, right = metrics.clip_anchors(
        scorer.encode_images([real[i] for i in chosen]), texts, named
    )
    if unknown := _unknown(bootstrap.mean(right - wrong)):
        return not_measured(unknown)

    def score(label: str) -> Array:
        embedded = scorer.encode_images([pictures[label][i] for i in chosen])
        return metrics.anchored(metrics.clip_similarity(embedded, texts), wrong, right)

    base, kept = score("base"), score("kept")
    values = (base, kept, kept - base)
    return {n: Metric.of(bootstrap.mean(v)) for n, v in zip(NAMES, values, strict=True)}


def _unknown(gap: Estimate) -> str:
    """Why nothing can be measured against a gap between right and wrong captions; "" where it can."""
    if gap.value > LEAST_GAP and gap.low >= LEAST_KNOWN * gap.value:
        return ""
    return (
        "this CLIP hardly tells real pairs from shuffled ones here: their similarities differ by "
        f"{gap.value:.3f} [{gap.low:.3f}, {gap.high:.3f}]. It does not know such pictures (take another "
        "one with clip=...), or the captions hardly differ"
    )


def count_flat(paths: Sequence[Path]) -> Metric:
    """How many pictures are blank."""
    flat = sum(metrics.is_flat(_read(path)) for path in paths)
    return Metric(value=float(flat), n=len(paths))


def _read(path: Path) -> Image.Image:
    with Image.open(path) as picture:
        return picture.convert("RGB")
