"""Do pictures show what their captions say? By the similarity of the CLIP in the configuration."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from markupsafe import Markup

from curate.clip.config import ClipConfig
from curate.clip.models import label
from curate.report import page
from curate.report.page import Section
from evaluate.evaluators import Description, Evaluator, cost
from evaluate.evaluators.flat_pictures import is_flat
from evaluate.results import Metric, Results
from finetune.intervals import Array, Estimate, estimate

if TYPE_CHECKING:
    from PIL import Image

    from curate.clip.scorer import ClipScorer
    from evaluate.evaluation import Evaluation
    from evaluate.measure_config import MeasureConfig

MIN_CAPTIONS = 16
LEAST_GAP = 1e-3  # of similarity, between right and wrong captions; less is rounding
LEAST_KNOWN = 0.5  # of that gap; its interval has to lie above this share of it
NOTICEABLE = 0.05  # of the scale from wrong captions to real pictures; less is not called a cost
NAMES = ("clip_base", "clip_kept", "clip_change")


def measure(evaluation: Evaluation) -> Iterator[tuple[str, Metric]]:
    """Base and the checkpoint to keep, drawn from the same noise for held-out captions."""
    prompts = evaluation.prompts[: evaluation.config.samples.clip_captions]
    if not evaluation.config.samples.clip_captions:
        found = _not_measured("left out by samples.clip_captions=0")
    elif evaluation.kept == 0:
        found = _not_measured("the base is kept; there is nothing to compare it with")
    elif len(prompts) < MIN_CAPTIONS:
        found = _not_measured(f"{len(prompts)} captions; at least {MIN_CAPTIONS} needed")
    else:
        from curate.clip.load import load_clip

        drawn = {"base": evaluation.drawn[0], "kept": evaluation.drawn[evaluation.kept]}
        found = compare(
            load_clip(evaluation.config.clip, evaluation.device),
            [prompt.caption for prompt in prompts],
            [evaluation.real_picture(prompt.key) for prompt in prompts],
            {label: files[: len(prompts)] for label, files in drawn.items()},
            evaluation.groups_of([prompt.key for prompt in prompts]),
        )
    yield from found.items()


def _instrument(config: MeasureConfig) -> str:
    return f"measured with {label(config.clip)}"


def _not_measured(reason: str) -> dict[str, Metric]:
    return dict.fromkeys(NAMES, Metric(reason=reason))


def compare(
    scorer: ClipScorer,
    captions: Sequence[str],
    real: Sequence[Image.Image],
    drawn: dict[str, list[Path]],
    groups: Sequence[str],
) -> dict[str, Metric]:
    """Anchored CLIP scores of base and kept, and their paired difference.

    Args:
        scorer: the CLIP.
        captions: [N] held-out captions. real: [N] the pictures they belong to.
        drawn: [N] files under ``base`` and ``kept``, same seeds.
        groups: [N], the duplicate group of each.
    """
    pictures = {label: [_read(path) for path in paths] for label, paths in drawn.items()}
    fine = [not any(map(is_flat, row)) for row in zip(*pictures.values(), strict=True)]
    if sum(fine) < MIN_CAPTIONS:
        return _not_measured(
            f"{sum(fine)} captions with pictures that are not blank; at least {MIN_CAPTIONS} needed"
        )
    chosen = [i for i, good in enumerate(fine) if good]
    named, of = [captions[i] for i in chosen], [groups[i] for i in chosen]
    if len(set(named)) < 2:
        return _not_measured(
            "all captions are the same, so there are no wrong ones to compare with"
        )
    texts = scorer.encode_texts(named)
    wrong, right = clip_anchors(scorer.encode_images([real[i] for i in chosen]), texts, named)
    if unknown := _unknown(estimate(right - wrong, of)):
        return _not_measured(unknown)

    def score(label: str) -> Array:
        embedded = scorer.encode_images([pictures[label][i] for i in chosen])
        return anchored(clip_similarity(embedded, texts), wrong, right)

    base, kept = score("base"), score("kept")
    values = (base, kept, kept - base)
    return {n: Metric.of(estimate(v, of), "val") for n, v in zip(NAMES, values, strict=True)}


def _unknown(gap: Estimate) -> str:
    """Why nothing can be measured with this gap between right and wrong captions; "" if it can be."""
    if gap.value > LEAST_GAP and gap.low >= LEAST_KNOWN * gap.value:
        return ""
    return (
        "this CLIP hardly tells real pairs from shuffled ones here: their similarities differ by "
        f"{gap.value:.3f} [{gap.low:.3f}, {gap.high:.3f}]. Either it does not know such pictures (choose "
        "another one with clip=...), or the captions hardly differ"
    )


def _read(path: Path) -> Image.Image:
    from PIL import Image

    with Image.open(path) as picture:
        return picture.convert("RGB")


def clip_similarity(images: Array, texts: Array) -> Array:
    """Cosine of each picture with its own caption; [N, D] unit vectors => [N] in [-1, 1].

    Plain cosine: Hessel et al. (2021) multiply by 2.5 and clip at zero, torchmetrics by 100.

    >>> clip_similarity(np.eye(2), np.array([[1.0, 0.0], [1.0, 0.0]])).tolist()
    [1.0, 0.0]
    """
    return np.einsum("nd,nd->n", images, texts)


def clip_anchors(images: Array, texts: Array, captions: Sequence[str]) -> tuple[Array, Array]:
    """Similarity of each real picture with wrong captions, on average, and with its own.

    Wrong captions are those of the other pictures that read differently.

    Args:
        images: [N, D] unit embeddings of real pictures. texts: [N, D] of their captions.
        captions: [N], to recognise equal ones; at least two of them differ.

    Returns:
        Two vectors [N]: wrong and right.
    """
    names = np.array(captions, dtype=object)
    mismatched = names[:, None] != names[None, :]
    wrong = (images @ texts.T * mismatched).sum(axis=1) / mismatched.sum(axis=1)
    return wrong, clip_similarity(images, texts)


def anchored(similarity: Array, wrong: Array, right: Array) -> Array:
    """Similarity on the scale where 0 is a wrong caption and 1 is the real picture; all [N].

    The mean is the ratio of means, mean(similarity - wrong) / mean(right - wrong). Each value is the
    mean plus the caption's influence on that ratio (the delta method), so that the interval of the
    mean includes the uncertainty of the anchors.

    >>> anchored(np.array([0.10, 0.20, 0.30]), np.full(3, 0.10), np.full(3, 0.30)).round(3).tolist()
    [0.0, 0.5, 1.0]
    """
    gap = right - wrong
    ratio = (similarity - wrong).mean() / gap.mean()
    return ratio + (similarity - wrong - ratio * gap) / gap.mean()


def sections(found: Results) -> Iterator[Section]:
    """Base and kept between wrong captions and real pictures."""
    yield Section("Prompt following", "prompts", _section(found))


def _section(found: Results) -> Markup:
    change, shown = found.metrics["clip_change"], EVALUATOR.metrics["clip_change"].shown
    if change.value is None:
        return page.paragraph(f"Not measured: {change.reason}.", "note")
    caption = (
        f"CLIP similarity of pictures with the {change.n} held-out captions they were drawn for, kept "
        f"against base: {shown(change)}, same seeds."
    )
    return page.figure(scale(found), caption, caption) + page.paragraph(_by(found), "note")


def _by(found: Results) -> str:
    """Which CLIP measured it, and what that means if it chose the training pairs, too."""
    known = found.provenance["evaluate"]["clip"]
    clip = label(ClipConfig(name=str(known["name"]), pretrained=known.get("pretrained")))
    chose = found.provenance["curate"].get("clip")
    if chose is not None and chose != clip:
        return f"Measured with {page.clean(clip)}; {page.clean(chose)} chose the training pairs."
    same = "The same CLIP chose" if chose else "If the same CLIP chose"
    rest = "so pictures may please it" if chose else "pictures may please it"
    return (
        f"Measured with {page.clean(clip)}. {same} the training pairs, {rest} without following their "
        "captions better; clip=... measures with another one."
    )


def scale(found: Results) -> Markup:
    """Base and kept on the scale from wrong captions (0) to real pictures (1)."""
    drawing, axes = page.subplots(7.5, 1.9)
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


EVALUATOR = Evaluator(
    metrics={
        "clip_base": Description(
            "Prompt following, base",
            "CLIP similarity of generated pictures with their captions: 0 is real pictures with wrong "
            "captions, 1 is real pictures with their own.",
            better="higher",
            fraction=False,
        ),
        "clip_kept": Description(
            "Prompt following, kept",
            "The same for the kept checkpoint.",
            better="higher",
            fraction=False,
            tile="prompt following (real pictures: 1)",
        ),
        "clip_change": Description(
            "Prompt following, kept against base",
            "The difference of the two, compared caption by caption, same seeds.",
            better="higher",
            fraction=False,
        ),
    },
    measure=measure,
    sections=sections,
    findings=lambda metrics: cost(
        metrics,
        "clip_change",
        "prompts",
        "Pictures show less of what their captions say than the base's",
        "Pictures show their captions as well as the base's",
        NOTICEABLE,
    ),
    instrument=_instrument,
    position=40,
)
