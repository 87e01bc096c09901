"""Do pictures show what their captions say? By the similarity of the CLIP in the configuration."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from markupsafe import Markup

from curate.clip.config import ClipConfig
from curate.clip.models import label
from curate.report import page
from curate.report.page import Section
from curate.run.intervals import wilson
from evaluate.evaluators import Description, Evaluator, cost, draw_interval
from evaluate.measure.blank import is_flat
from evaluate.metrics.clip_score import anchored, clip_anchors, clip_similarity, distinct, retrieved
from evaluate.results import BASE_KEPT, Metric, Results
from finetune.drawing.picture import read_picture
from finetune.intervals import Array, Estimate, estimate, group_means

if TYPE_CHECKING:
    from evaluate.evaluation import Evaluation
    from evaluate.measure_config import MeasureConfig
    from finetune.drawing.sampling import Prompt

MIN_CAPTIONS = 16  # of different groups
LEAST_GAP = 1e-3  # of similarity, between right and wrong captions; less is rounding
LEAST_KNOWN = 0.5  # of that gap; its interval has to lie above this share of it
NOTICEABLE = 0.05  # of the scale from wrong captions to real pictures; less is not called a cost
NAMES = ("clip_base", "clip_kept", "clip_change")
RETRIEVAL = {  # among how many captions a picture's own counts as found
    first: tuple(f"top{first}_{name}" for name in ("base", "kept", "change", "real"))
    for first in (1, 5)
}
_ON = "val"


def measure(evaluation: Evaluation) -> Iterator[tuple[str, Metric]]:
    """Base and the checkpoint to keep, drawn from the same noise for held-out captions."""
    prompts = evaluation.prompts[: evaluation.config.samples.clip_captions]
    if not evaluation.config.samples.clip_captions:
        found = _not_measured("left out by samples.clip_captions=0")
    elif evaluation.kept == 0:
        found = _not_measured(f"{BASE_KEPT}; there is nothing to compare it with")
    elif len(prompts) < MIN_CAPTIONS:
        found = _not_measured(f"{len(prompts)} captions; at least {MIN_CAPTIONS} needed")
    else:
        found = _measured(evaluation, prompts)
    yield from found.items()


def _measured(evaluation: Evaluation, prompts: Sequence[Prompt]) -> dict[str, Metric]:
    drawn = [evaluation.drawn[row][: len(prompts)] for row in (0, evaluation.kept)]
    pairs = zip(*drawn, strict=True)
    chosen = [i for i, pair in enumerate(pairs) if not any(is_flat(read_picture(p)) for p in pair)]
    captions = [prompts[i].caption for i in chosen]
    groups = distinct(captions, evaluation.groups_of([prompts[i].key for i in chosen]))
    if reason := _too_few(len(set(groups)), len(prompts) - len(chosen)):
        return _not_measured(reason)
    base, kept = (evaluation.clip_features.of_files([files[i] for i in chosen]) for files in drawn)
    keys = [prompts[i].key for i in chosen]
    texts = evaluation.clip.encode_texts(captions)
    found = compare(
        Embedded(
            texts=texts,
            real=evaluation.real_features(evaluation.clip_features, keys),
            base=base,
            kept=kept,
            groups=groups,
        )
    )
    if found["clip_change"].value is not None:  # for evaluate.compare
        own, by = clip_similarity(kept, texts), _instrument(evaluation.config)
        evaluation.grid.store.put_scores("clip_similarity", "val", keys, own, by)
    return found


def _too_few(groups: int, blank: int) -> str:
    """Why captions of so many groups do not suffice; "" if they do."""
    if groups >= MIN_CAPTIONS:
        return ""
    aside = f" ({blank} more have blank pictures)" if blank else ""
    return f"{groups} groups of different captions{aside}; at least {MIN_CAPTIONS} needed"


def _instrument(config: MeasureConfig) -> str:
    return f"measured with {label(config.clip)}"


def _not_measured(reason: str) -> dict[str, Metric]:
    return dict.fromkeys((*NAMES, *RETRIEVAL[1], *RETRIEVAL[5]), Metric(reason=reason))


@dataclass(frozen=True, slots=True)
class Embedded:
    """Captions and pictures in a CLIP's eyes, unit vectors [N, D].

    Attributes:
        texts: captions. real: the pictures they belong to.
        base, kept: what was drawn for them, same seeds.
        groups: [N]; captions of one group are not wrong for each other's pictures.
    """

    texts: Array
    real: Array
    base: Array
    kept: Array
    groups: Sequence[str]


def compare(seen: Embedded) -> dict[str, Metric]:
    """Anchored CLIP scores and retrieval of base and kept, and their paired differences."""
    wrong, right = clip_anchors(seen.real, seen.texts, seen.groups)
    if unknown := _unknown(estimate(right - wrong, seen.groups)):
        return _not_measured(unknown)
    base, kept = (
        anchored(clip_similarity(images, seen.texts), wrong, right, seen.groups)
        for images in (seen.base, seen.kept)
    )
    values = (base, kept, kept - base)
    found = {n: estimate(v, seen.groups) for n, v in zip(NAMES, values, strict=True)}
    for first, names in RETRIEVAL.items():
        base, kept, real = (
            retrieved(images, seen.texts, seen.groups, first)
            for images in (seen.base, seen.kept, seen.real)
        )
        shares = [_share(each, seen.groups) for each in (base, kept, real)]
        shares.insert(2, estimate(kept - base, seen.groups))
        found |= zip(names, shares, strict=True)
    return {name: Metric.of(each, _ON) for name, each in found.items()}


def _share(values: Array, groups: Sequence[str]) -> Estimate:
    """Mean of zeros and ones over groups, with the score interval: all ones are no certainty."""
    means = group_means(values, groups)
    low, high = wilson(float(means.sum()), len(means))
    return Estimate(float(means.mean()), low, high, len(values), len(means))


def _unknown(gap: Estimate) -> str:
    """Why nothing can be measured with this gap between right and wrong captions; "" if it can be."""
    if gap.value > LEAST_GAP and gap.low >= LEAST_KNOWN * gap.value:
        return ""
    return (
        "this CLIP hardly tells real pairs from shuffled ones here: their similarities differ by "
        f"{gap.value:.3f} [{gap.low:.3f}, {gap.high:.3f}]. Either it does not know such pictures (choose "
        "another one with clip=...), or the captions hardly differ"
    )


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
    return (
        page.figure(scale(found), caption, caption)
        + _found_again(found)
        + page.paragraph(_by(found), "note")
    )


def _found_again(found: Results) -> Markup:
    """How often a picture's own caption fits it best among those of the held-out pictures."""
    change = found.metrics.get("top1_change", Metric())
    if change.value is None or not change.groups:
        return Markup("")
    shown = EVALUATOR.metrics["top1_change"].shown(change)
    said = (
        f"The picture's own caption fits it best, among those of {change.groups} groups of held-out pictures, "
        f"for {_percent(found, 'top1_kept')} of the kept checkpoint's pictures and {_percent(found, 'top1_base')} of "
        f"the base's (difference in points: {shown}); for {_percent(found, 'top1_real')} of real ones."
    )
    rows = [
        [
            "First" if first == 1 else f"Among the first {first}",
            *(_percent(found, f"top{first}_{name}") for name in ("base", "kept", "real")),
            f"{100 * first / change.groups:.1f} %",
        ]
        for first in RETRIEVAL
    ]
    head = ["Own caption", "Base", "Kept", "Real pictures", "Chance"]
    return page.paragraph(said) + page.table(head, rows)


def _percent(found: Results, name: str) -> str:
    metric = found.metrics[name]
    assert metric.value is not None
    assert metric.low is not None
    assert metric.high is not None
    return f"{100 * metric.value:.0f} % [{100 * metric.low:.0f}, {100 * metric.high:.0f}]"


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
        draw_interval(axes, row, metric, colour)
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


def _described(first: int) -> dict[str, Description]:
    what = "fits best" if first == 1 else f"is among the {first} that fit best"
    meaning = (
        f"Share of generated pictures whose own caption {what}, among one caption of each group of held-out "
        f"pictures, by CLIP similarity; {first} in the number of groups is chance."
    )
    change = "The difference of the two, compared caption by caption, same seeds."
    meanings = (meaning, "The same for the kept checkpoint.", change, "The same for real pictures.")
    whose = ("base", "kept", "kept against base", "real pictures")
    return {
        name: Description(
            f"Own caption {'first' if first == 1 else f'among first {first}'}, {of}",
            said,
            "higher",
            fraction=False,
        )
        for name, of, said in zip(RETRIEVAL[first], whose, meanings, strict=True)
    }


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
        **{name: text for first in RETRIEVAL for name, text in _described(first).items()},
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
